"""Standard output and error: unencodable characters, broken pipes, and progress bars."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

ASCII_FORMS = {"…": "-", "·": "-", "→": ">", "↑": "^", "±": "~", **dict.fromkeys("▏▎▍▌▋▊▉█", "#")}
"""Substitutes of one column for this project's symbols in encodings that lack them."""

_DEGRADE = "unfreeze.degrade"


def open_output(*, ignore_broken_pipe: bool = False) -> None:
    """Make standard output and error write characters that their encoding lacks as ASCII.

    Args:
        ignore_broken_pipe: Discard further output when the reader has closed the pipe, as `| head` does.
    """
    codecs.register_error(_DEGRADE, _degraded)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors=_DEGRADE)
        if ignore_broken_pipe:
            stream.flush()
            setattr(sys, name, _ignoring_broken_pipe(stream))


def flush_output() -> None:
    """Flush both streams; after a broken pipe, discard the rest instead of printing a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _discard(stream.fileno())


def _degraded(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that can't be encoded, and the position after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii_form, error.object[error.start : error.end])), error.end


def _ascii_form(character: str) -> str:
    """Return the substitute of a symbol, the letter without its accent, or else an escape."""
    letter = unicodedata.normalize("NFKD", character)[0]
    return ASCII_FORMS.get(character) or (letter if letter.isascii() else ascii(character)[1:-1])


class _PipeFile(io.FileIO):
    """A file that ignores a broken pipe.

    Args:
        stream: The stream to replace; referenced, because it closes the file when it is collected.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._stream = stream

    def write(self, data: object, /) -> int:
        """Write bytes; after a broken pipe, count all of them as written."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            _discard(self.fileno())
            return len(data)  # type: ignore[arg-type]


def _ignoring_broken_pipe(stream: io.TextIOWrapper) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_PipeFile(stream)),
        stream.encoding,
        _DEGRADE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _discard(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


@contextmanager
def counting_bar(title: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the number of completed items in a progress bar, if there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(f"  {title}", total=total)
        yield lambda done: progress.update(task, completed=done)
