"""Contestants as processes that take turns, so that a noisy machine slows all of them down alike.

One that waits is stopped with all its workers (SIGSTOP), so that it costs the others nothing and prefetches nothing.
`benchmarks/peers/turns.py` is the other side.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

Reply = dict[str, Any]
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""The same for all: waiting threads sleep, which a machine with more processes than cores needs; GPUs are not seen."""
TIMEOUT_S = 1800


class ContestantError(Exception):
    """A contestant has ended without an answer."""


class Entrant(Protocol):
    """Whoever can take a turn."""

    name: str

    def start(self) -> None: ...

    def turn(self) -> Reply: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Pace:
    """How contestants take turns.

    Args:
        rounds: Turns of each.
        untimed_steps: Steps of a turn before the clock starts.
        timed_steps: Steps of a turn that are timed.
    """

    rounds: int
    untimed_steps: int = 2
    timed_steps: int = 7

    @property
    def steps(self) -> int:
        """Of a turn."""
        return self.untimed_steps + self.timed_steps


@dataclass
class Paced:
    """A contestant that trains a slice in each turn and stands still in between.

    Args:
        name: What it is called in the table.
        command: Starts it.
        batch_size: Images per step.
        pace: What a turn is.
    """

    name: str
    command: Sequence[str]
    batch_size: int
    pace: Pace

    def start(self) -> None:
        """Start it; it sets itself up, warms up, and waits."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, as it stays open until close
        self._process, self._stdin, self._stdout = _start(self.command, self._log)
        self._is_ready = False

    def turn(self) -> Reply:
        """Return what a slice took, with `images_per_second`."""
        self.be_ready()
        self._signal(signal.SIGCONT)
        self._stdin.write(f"{self.pace.untimed_steps} {self.pace.timed_steps}\n".encode())
        reply = self._reply()
        return {**reply, "images_per_second": reply["steps"] * self.batch_size / reply["seconds"]}

    def be_ready(self) -> None:
        """Wait until it is warm; it stands still from then on."""
        if not self._is_ready:
            self._reply()
            self._is_ready = True

    def close(self) -> None:
        """End it and its workers."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._stdout.close()
        self._log.close()

    def _reply(self) -> Reply:
        reply = _next_reply(self._stdout, time.monotonic() + TIMEOUT_S)
        if reply is None:
            raise ContestantError(f"{self.name}: {_last_line(self._log)}")
        self._signal(signal.SIGSTOP)
        return reply

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@dataclass
class Whole:
    """A contestant that trains from the start to the end in each turn.

    Args:
        name: What it is called in the table.
        command: Runs it; its last line is its reply.
    """

    name: str
    command: Sequence[str]

    def start(self) -> None:
        """Do nothing: each turn starts anew."""

    def turn(self) -> Reply:
        """Return what it said of the run."""
        with tempfile.TemporaryFile() as log:
            process, stdin, stdout = _start(self.command, log)
            try:
                reply = _next_reply(stdout, time.monotonic() + 100 * TIMEOUT_S)
                process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                stdout.close()
                stdin.close()
            if reply is None:
                raise ContestantError(f"{self.name}: {_last_line(log)}")
        return reply

    def close(self) -> None:
        """Do nothing."""


def race(entrants: Sequence[Entrant], *, rounds: int) -> dict[str, list[Reply]]:
    """Let all take a turn after one another, several times over.

    Returns:
        The replies of each, by name; those who failed are not in it, and are told of on the terminal.
    """
    running = list(entrants)
    replies: dict[str, list[Reply]] = {entrant.name: [] for entrant in entrants}
    started: list[Entrant] = []
    try:
        for entrant in entrants:  # one after the other: what they compute at first is timed too
            entrant.start()
            started.append(entrant)
            if isinstance(entrant, Paced):
                _try(entrant, entrant.be_ready, running)
        for _ in range(rounds):
            for entrant in list(running):
                reply = _try(entrant, entrant.turn, running)
                if reply is not None:
                    _tell(entrant.name, reply)
                    replies[entrant.name].append(reply)
    finally:
        for entrant in started:
            entrant.close()
    return {entrant.name: replies[entrant.name] for entrant in running}


def _try(entrant: Entrant, work: Any, running: list[Entrant]) -> Reply | None:
    try:
        reply: Reply | None = work()
    except ContestantError as error:
        print(f"  failed, and left out: {error}", flush=True)
        running.remove(entrant)
        return None
    return reply


def _tell(name: str, reply: Reply) -> None:
    rate = reply.get("images_per_second")
    told = f"{rate:,.1f} images/s" if rate else f"{reply['train_seconds']:.1f} s"
    print(f"  {name}: {told}", file=sys.stderr, flush=True)


def _start(command: Sequence[str], log: IO[bytes]) -> tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]:
    process = subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **ENVIRONMENT},
        # To stop and end it with its workers; in this session, so that the kernel ends stopped ones if this one dies.
        process_group=0,
    )
    assert process.stdin is not None and process.stdout is not None
    return process, process.stdin, process.stdout


def _next_reply(stream: IO[bytes], deadline: float) -> Reply | None:
    """Return the next line that is a JSON object; None when the stream ends or the time is over."""
    while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = stream.readline()
        if not line:
            return None
        with contextlib.suppress(ValueError):
            reply = json.loads(line)
            if isinstance(reply, dict):
                return reply
    return None


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "ended without a word"
