"""Files of cache entries on disk: their size and last use."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOCK_FILE = "in-use"
"""The file that processes lock while they use an entry."""

META_FILE = "entry.json"
"""The description of an entry."""

_ENTRY_FILES = {LOCK_FILE, "facts.npz"}
"""Files that distinguish an entry from other folders; the latter is in entries of earlier versions."""


class EntrySize(NamedTuple):
    """Size and last use of an entry.

    Args:
        nbytes: Total size of its files.
        last_used: Latest modification time of a file, in seconds since 1970.
    """

    nbytes: int
    last_used: float


def subfolders(parent: Path) -> list[Path]:
    """Return the folders in a folder, without links; empty if it is missing, unreadable or a link."""
    if parent.is_symlink():
        return []
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def measure_entry(folder: Path) -> EntrySize | None:
    """Return size and last use of an entry; None for a folder that is not an entry."""
    nbytes, last_used, names = 0, 0.0, set()
    try:
        with os.scandir(folder) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        return None
                    names.add(file.name)
                    nbytes += status.st_size
                    last_used = max(last_used, status.st_mtime)
    except OSError:
        return None
    return EntrySize(nbytes, last_used) if names & _ENTRY_FILES else None
