"""A contestant's side of taking turns: train some steps when told to, say what they took, and wait.

Short slices in turns are what makes timings on a noisy machine comparable: whatever slows it down slows all of them
down. `benchmarks/race.py` is the other side; the two talk by lines on stdin and stdout.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

WARMUP_STEPS = 3


def claim_stdout() -> Any:
    """Return what was stdout, for replies alone; whatever else a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return replies


class Turns:
    """Counts a trainer's steps and holds it at a step's end until its next turn comes.

    Args:
        paced: Whether to take turns at all; otherwise steps are not counted.
        packages: Whose versions are told.

    Attributes:
        more: What else every reply tells.
    """

    def __init__(self, *, paced: bool, packages: Sequence[str] = ()) -> None:
        self._replies = claim_stdout()
        self.more: dict[str, Any] = {}
        self._paced = paced
        self._versions = {name: _version(name) for name in ("torch", "torchvision", *packages)}
        self._slice = self._left = (WARMUP_STEPS, 0)
        self._started = 0.0

    def say(self, **values: Any) -> None:
        """Send one reply."""
        self._replies.write(json.dumps({**values, **self.more, "versions": self._versions}) + "\n")
        self._replies.flush()

    def step(self) -> None:
        """Note that a step has ended; wait here when it was the last of the turn."""
        if not self._paced:
            return
        untimed, timed = self._left
        if untimed:
            untimed -= 1
            if not untimed:
                _wait_for_device()
            self._started = time.perf_counter()
        else:
            timed -= 1
        self._left = untimed, timed
        if not untimed and not timed:
            _wait_for_device()
            self.say(seconds=time.perf_counter() - self._started, steps=self._slice[1])
            self._wait()

    def begin_again(self) -> None:
        """Drop what the turn has so far: an epoch began in its midst, and starting one is not a step."""
        self._left = self._slice

    def _wait(self) -> None:
        told = sys.stdin.readline().split()
        if not told:
            for worker in multiprocessing.active_children():
                worker.terminate()
            os._exit(0)  # in the midst of a trainer's loop, which has nothing left to do
        self._slice = self._left = (int(told[0]), int(told[1]))
        self._started = time.perf_counter()


def _wait_for_device() -> None:
    """Let a GPU end what it was given, so that its time is counted."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
