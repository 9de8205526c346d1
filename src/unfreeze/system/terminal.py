"""Standard output and error: what their encoding lacks, readers that have left, and bars."""

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

ASCII_FORMS = {"…": "-", "·": "-", "→": ">", "↑": "^", "±": "~", **dict.fromkeys("▏▎▍▌▋▊▉█", "#")}
"""What stands for the signs of this project's own lines where the encoding lacks them; as wide, for tables."""

_DEGRADE = "unfreeze.degrade"


def open_output(*, outlives_reader: bool = False) -> None:
    """Make standard output and error write every text: what their encoding lacks in ASCII.

    Args:
        outlives_reader: Whether to go on, writing nowhere, when who reads the output has left, as `| head` does.
    """
    codecs.register_error(_DEGRADE, _degraded)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors=_DEGRADE)
        if outlives_reader:
            stream.flush()
            setattr(sys, name, _outliving(stream))


def flush_output() -> None:
    """Write what is held back, and nothing at all where nobody reads it; the interpreter would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _discard(stream.fileno())


def _degraded(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for the characters that can't be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii_form, error.object[error.start : error.end])), error.end


def _ascii_form(character: str) -> str:
    """Return the form of our own signs, the letter without its accent, or else the character's number."""
    letter = unicodedata.normalize("NFKD", character)[0]
    return ASCII_FORMS.get(character) or (letter if letter.isascii() else ascii(character)[1:-1])


class _Outliving(io.FileIO):
    """A file that takes what nobody reads any more.

    Args:
        stream: What is written to it; kept, since it closes the file when it goes.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._stream = stream

    def write(self, data: object, /) -> int:
        """Write bytes; all of them count as written when the reader has left."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            _discard(self.fileno())
            return len(data)  # type: ignore[arg-type]


def _outliving(stream: io.TextIOWrapper) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Outliving(stream)),
        stream.encoding,
        _DEGRADE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _discard(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)


@contextmanager
def counting_bar(title: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield what takes the number of things done, and shows it in a bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(f"  {title}", total=total)
        yield lambda done: progress.update(task, completed=done)
