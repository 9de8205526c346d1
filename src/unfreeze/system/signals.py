"""Handling of SIGINT and SIGTERM: immediate, or deferred to the end of a step to save a checkpoint."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from unfreeze.errors import Stopped


class StopSignals:
    """Handlers that raise `Stopped`; while deferring, the first signal only sets `received`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferring = False

    def install(self) -> None:
        """Install the handlers; a no-op outside the main thread."""
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGTERM, self._handle)

    def release(self) -> None:
        """Stop deferring; raise the signal that was received meanwhile.

        Raises:
            Stopped: If a signal was received.
        """
        self.deferring = False
        if self.received is not None:
            raise Stopped(self.received)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop deferring inside this context, so that signals raise immediately.

        Raises:
            Stopped: If a signal was or is received.
        """
        deferring = self.deferring
        self.release()
        try:
            yield
        finally:
            self.deferring = deferring

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.deferring and self.received is None:
            self.received = signum
            return
        self.deferring = False
        raise Stopped(signum)


STOP = StopSignals()
"""The handlers of this process."""
