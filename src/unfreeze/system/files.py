"""Files that are there whole or not at all, and what runs leave in them."""

import csv
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.system.disk import telling_full_disk

ROOM = ".room"
"""A file that keeps room on the disk for what a run writes when it ends."""

_ROOM_BYTES = 1 << 18

BUILDING = ".building-"
"""What the names of files begin with that are being written."""

_LONGEST_WORD = 80
_LFS = b"version https://git-lfs"


def refuse_occupied(folder: Path, *, verb: str) -> None:
    """Refuse to write into a folder that holds something; hidden files, such as its lock, do not count.

    Raises:
        UnfreezeError: If it does.
    """
    if folder.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise UnfreezeError(f"{verb}: {folder} is not empty; remove it, or name another place with --out")


def file_word(name: str) -> str:
    """Return a name as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)[:_LONGEST_WORD] or "_"


def reserve_room(folder: Path) -> None:
    """Keep room in a folder for what is written last, so that a full disk can still be reported.

    Raises:
        DiskFullError: If there is none.
    """
    with replacing(folder / ROOM, _ROOM_BYTES) as building:
        building.write_bytes(os.urandom(_ROOM_BYTES))


def release_room(folder: Path) -> None:
    """Give the room back, right before it is needed."""
    with suppress(OSError):
        (folder / ROOM).unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, nbytes: int | None = None) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the place of another at the end; none is left after an error.

    Args:
        path: Of the file that readers see, in a folder that is there.
        nbytes: The least that it takes, where that is known.

    Raises:
        DiskFullError: If there is no room for it.
    """
    building = path.with_name(f"{BUILDING}{secrets.token_hex(4)}-{path.name}")
    with telling_full_disk(path, nbytes):
        try:
            yield building
            os.replace(building, path)
        finally:
            building.unlink(missing_ok=True)


def strange_content(path: Path) -> str | None:
    """Return in a few words what a file holds that is neither an image nor weights; None where nothing is known.

    What a server answers in place of a file that needs a login or is gone, and what Git keeps of a large file.
    """
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "an empty file"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page"
    return "a pointer of Git LFS, for which git lfs pull gets the file" if start.startswith(_LFS) else None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all; a file system's name may hold bytes that are no text."""
    with (
        replacing(path) as building,
        building.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path: Path, *, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a run has left in a file.

    Args:
        path: Of the file.
        keys: What must be in it.

    Raises:
        UnfreezeError: If it is not there, or not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{path} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UnfreezeError(f"{path} is not what a run has left; want a run's directory, as train.py leaves it")
    return content
