"""What a person sees without a traceback."""

from collections.abc import Sequence


class UnfreezeError(Exception):
    """A mistake that a person can mend; the message says what was given, what is allowed, what to type."""

    exit_code = 2


class TrainingFailedError(UnfreezeError):
    """Training went wrong (a loss that is not finite); the run keeps its last good checkpoint."""

    exit_code = 1


class EndedEarlyError(Exception):
    """A limit or a callback ended training before its plan did; the message says which, the last checkpoint holds."""


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
    """Return the first line of what an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(given: str, allowed: Sequence[str], *, limit: int = 5) -> list[str]:
    """Return the allowed names that resemble a given one, the most alike first."""
    from difflib import get_close_matches

    return get_close_matches(given, allowed, n=limit, cutoff=0.5)


def suggest(given: str, allowed: Sequence[str], *, limit: int = 5) -> str:
    """Return the allowed names nearest to a given one, or all of them where there are few."""
    if len(allowed) <= limit:
        return ", ".join(allowed)
    return ", ".join(nearest(given, allowed, limit=limit) or allowed[:limit])
