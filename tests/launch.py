"""Runs train.py in processes of their own, forked from one that has imported the libraries already; and `unfreeze`."""

import multiprocessing
import os
import runpy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from unfreeze.cli.app import main

ROOT = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "hydra",
        "lightning",
        "sklearn.model_selection",
        "torchvision",
        "unfreeze.runs.fit",
        "unfreeze.cli.script",
        "matplotlib",
    ]
)

TINY_RUN = [
    *("data=digits", "data.fraction=0.3", "data.image_size=32", "model=tiny"),
    *("logger=none", "report=false", "trainer.precision=32"),
]
"""A run of seconds, whose stages are still to be said."""


@dataclass(frozen=True)
class Finished:
    """How a process ended: `code` is negative for a signal that killed it."""

    code: int
    out: str
    err: str


class Launched:
    """A process that runs train.py."""

    def __init__(self, arguments: list[str], folder: Path, *, encoding: str = "utf-8", is_read: bool = True) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process = _CONTEXT.Process(target=_run, args=(arguments, str(folder), encoding, is_read))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def out(self) -> str:
        file = self._folder / "stdout"
        return file.read_text() if file.exists() else ""

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Wait until some text has been written."""
        deadline = time.monotonic() + timeout_s
        while text not in self.out:
            assert self._process.is_alive(), f"ended without {text!r}:\n{self.out}\n{self._error()}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.out}"
            time.sleep(0.02)

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def finish(self, timeout_s: float = 300) -> Finished:
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"still running:\n{self.out}"
        return Finished(self._process.exitcode, self.out, self._error())

    def _error(self) -> str:
        return (self._folder / "stderr").read_text()


def unfreeze(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the `unfreeze` command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["unfreeze", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def launch(arguments: list[str], folder: Path) -> Launched:
    """Start train.py with a folder as its working directory."""
    return Launched(arguments, folder)


def train(arguments: list[str], folder: Path, *, encoding: str = "utf-8", is_read: bool = True) -> Finished:
    """Run train.py with a folder as its working directory, to its end.

    Args:
        arguments: As they are typed.
        folder: Where.
        encoding: Of its output.
        is_read: Whether anybody reads its standard output; else it is a pipe whose reader has left.
    """
    return Launched(arguments, folder, encoding=encoding, is_read=is_read).finish()


def _run(arguments: list[str], folder: str, encoding: str, is_read: bool) -> None:
    os.chdir(folder)
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        stream.flush()
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    if not is_read:
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding=encoding)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding)
    sys.path[:0] = [str(Path(__file__).parent)]
    sys.argv = [str(ROOT / "train.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
