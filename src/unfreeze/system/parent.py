"""Termination of ranks with their parent process, even if that was killed."""

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_EVERY_S = 1.0


def end_with_parent() -> None:
    """Kill this process when its parent ends.

    An orphaned rank would wait for the others for minutes, or go on writing to a directory that it does not own.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os._exit(1)
