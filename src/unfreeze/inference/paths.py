"""What a person means by a path: a file, a folder, a pattern, or a list of paths on standard input."""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from unfreeze.data.sources.walking import FolderWalk

LISTED = "-"
"""What stands for a list of paths on standard input."""

_CHUNK_BYTES = 1 << 16


class Unmatched(NamedTuple):
    """A path that leads to no image, and why."""

    given: str
    reason: str


def find_paths(
    given: Sequence[str], *, suffixes: frozenset[str], listed: BinaryIO | None = None, is_null: bool = False
) -> Iterator[str | Unmatched]:
    """Yield files in the order in which they are meant; of a folder, the names are in memory and no more.

    Args:
        given: Files, folders, patterns as in a shell (`**` goes into folders too), `-` for what is listed.
        suffixes: Of images, in lower case; a folder is looked through for these, a file that is named may have any.
        listed: Paths, one in a line; none of them is a pattern.
        is_null: Whether a zero byte ends each of them, in place of the line.
    """
    for each in given:
        path = os.path.expanduser(each)
        if each == LISTED and listed is not None:
            for name in _listed(listed, b"\0" if is_null else b"\n"):
                yield from _found(name, suffixes)
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from _matching(path, suffixes)
        else:
            yield from _found(path, suffixes)


def _found(path: str, suffixes: frozenset[str]) -> Iterator[str | Unmatched]:
    if not os.path.lexists(path):
        yield Unmatched(path, "no such file")
    elif not os.path.isdir(path):
        yield path
    else:
        empty = True
        for name in FolderWalk(path, suffixes, asked="predict").images(""):
            empty = False
            yield os.path.join(path, name)
        if empty:
            yield Unmatched(path, f"no images in this folder; their names end in {' '.join(sorted(suffixes))}")


def _matching(pattern: str, suffixes: frozenset[str]) -> Iterator[str | Unmatched]:
    # Not Path.glob, which enters hidden folders.
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if "**" in pattern:  # what is in the folders among them is there by itself
        matches = [path for path in matches if not os.path.isdir(path)]
    if not matches:
        yield Unmatched(pattern, "matches no file")
    for path in matches:
        yield from _found(path, suffixes)


def _listed(stream: BinaryIO, end: bytes) -> Iterator[str]:
    rest = b""
    while chunk := stream.read(_CHUNK_BYTES):
        *names, rest = (rest + chunk).split(end)
        yield from _decoded(names, end)
    yield from _decoded([rest], end)


def _decoded(names: Sequence[bytes], end: bytes) -> Iterator[str]:
    for name in names:
        whole = name.removesuffix(b"\r") if end == b"\n" else name
        if whole:
            yield os.fsdecode(whole)
