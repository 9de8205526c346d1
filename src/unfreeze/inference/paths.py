"""Expansion of paths to image files: files, folders, patterns, or a list on standard input."""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from unfreeze.data.sources.walking import FolderWalk

STDIN = "-"
"""The argument for a list of paths on standard input."""

_CHUNK_BYTES = 1 << 16


class Unmatched(NamedTuple):
    """A path without an image, and the reason."""

    given: str
    reason: str


def find_paths(
    given: Sequence[str], *, suffixes: frozenset[str], listed: BinaryIO | None = None, is_null: bool = False
) -> Iterator[str | Unmatched]:
    """Yield files in the order of their arguments, lazily.

    Args:
        given: Files, folders, shell patterns (`**` is recursive), or `-` for the paths in `listed`.
        suffixes: Suffixes of images in folders, in lower case; files that are named may have any.
        listed: Paths, one per line; none of them is a pattern.
        is_null: True if paths end in a zero byte instead of a line break.
    """
    for each in given:
        path = os.path.expanduser(each)
        if each == STDIN and listed is not None:
            for name in _listed(listed, b"\0" if is_null else b"\n"):
                yield from _expand(name, suffixes)
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield from _matching(path, suffixes)
        else:
            yield from _expand(path, suffixes)


def _expand(path: str, suffixes: frozenset[str]) -> Iterator[str | Unmatched]:
    if not os.path.lexists(path):
        yield Unmatched(path, "no such file")
    elif not os.path.isdir(path):
        yield path
    else:
        empty = True
        for name in FolderWalk(path, suffixes, argument="predict").images(""):
            empty = False
            yield os.path.join(path, name)
        if empty:
            yield Unmatched(path, f"no images in this folder; their names end in {' '.join(sorted(suffixes))}")


def _matching(pattern: str, suffixes: frozenset[str]) -> Iterator[str | Unmatched]:
    # Not Path.glob, which enters hidden folders.
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if "**" in pattern:  # it matches the files in these folders too
        matches = [path for path in matches if not os.path.isdir(path)]
    if not matches:
        yield Unmatched(pattern, "matches no file")
    for path in matches:
        yield from _expand(path, suffixes)


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
