"""Errors that a person sees without a traceback."""

from collections.abc import Sequence


class UnfreezeError(Exception):
    """An error that a person can mend; the message names what was given, what is allowed, and what to type."""

    exit_code = 2


class TrainingFailedError(UnfreezeError):
    """Training failed, as by a loss that is not finite; the last good checkpoint stays."""

    exit_code = 1


class EndedEarlyError(Exception):
    """A limit or a callback, named in the message, ended training before the plan did; the last checkpoint is valid."""


class Stopped(SystemExit):
    """SIGINT or SIGTERM was received; carries the exit code that shells expect."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    @property
    def signal_name(self) -> str:
        """The signal's name, such as SIGTERM."""
        import signal

        return signal.Signals(self.signum).name


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(given: str, allowed: Sequence[str], *, limit: int = 5) -> list[str]:
    """Return the allowed names that resemble a given one, the most similar first."""
    from difflib import get_close_matches

    return get_close_matches(given, allowed, n=limit, cutoff=0.5)


def suggest(given: str, allowed: Sequence[str], *, limit: int = 5) -> str:
    """Return the allowed names nearest to a given one, or all of them where there are few."""
    if len(allowed) <= limit:
        return ", ".join(allowed)
    return ", ".join(nearest(given, allowed, limit=limit) or allowed[:limit])
