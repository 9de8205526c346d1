"""Atomic writing and reading of files: JSON, CSV, and paths for messages."""

import csv
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.system.disk import full_disk_errors

BUILDING = ".building-"
"""Prefix of the names of files that are being written."""

_MAX_WORD = 80
_LFS = b"version https://git-lfs"


def refuse_occupied(folder: Path, *, verb: str) -> None:
    """Check that a folder is empty except for hidden files, such as its lock.

    Raises:
        UnfreezeError: If it is not empty.
    """
    if folder.exists() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise UnfreezeError(f"{verb}: {folder} is not empty; remove it, or name another place with --out")


def file_word(name: str) -> str:
    """Return a name with only characters that are safe in file names."""
    return re.sub(r"[^\w.-]+", "_", name)[:_MAX_WORD] or "_"


@contextmanager
def replacing(path: Path, nbytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path that replaces a file at the end of the context, or is removed after an error.

    Args:
        path: The file to replace or create, in an existing folder.
        nbytes: Its minimum size, if known.

    Raises:
        DiskFullError: If the disk is full.
    """
    building = path.with_name(f"{BUILDING}{secrets.token_hex(4)}-{path.name}")
    with full_disk_errors(path, nbytes):
        try:
            yield building
            os.replace(building, path)
        finally:
            building.unlink(missing_ok=True)


def strange_content(path: Path) -> str | None:
    """Describe the content of a file that is neither an image nor weights; None if it is not recognised.

    Recognises the web page of a failed download and the pointer of a Git LFS file.
    """
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "an empty file"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page"
    return "a pointer of Git LFS, for which git lfs pull gets the file" if start.startswith(_LFS) else None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table atomically; bytes of file names that are not valid text are escaped."""
    with (
        replacing(path) as building,
        building.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path: Path, *, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of a run's JSON file.

    Args:
        path: The file.
        keys: Keys that it must have.

    Raises:
        UnfreezeError: If the file is missing, damaged or incomplete.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{path} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UnfreezeError(f"{path} is not what a run has left; want a run's directory, as train.py leaves it")
    return content


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory, if it is inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as building:
        building.write_text(f"{text}\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def cache_root(folder: str | None) -> Path:
    """Return the cache folder: the given one, or the default below the user's cache folder."""
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unfreeze")
