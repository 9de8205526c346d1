"""SIGINT and SIGTERM: at once where nothing is lost, after the step where a checkpoint can be kept."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from unfreeze.errors import Stopped


class StopSignals:
    """Turns signals into `Stopped`; while deferring, the first one only sets `received`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferring = False

    def install(self) -> None:
        """Handle both signals; does nothing outside the main thread."""
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGTERM, self._handle)

    def release(self) -> None:
        """Stop deferring; raise at once what was received meanwhile.

        Raises:
            Stopped: If a signal was received.
        """
        self.deferring = False
        if self.received is not None:
            raise Stopped(self.received)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end at once what is done here, and one that came before it.

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
"""The one of this process."""
