"""One-line errors for a full disk: the file, its size, and the free space."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unfreeze.errors import UnfreezeError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(UnfreezeError):
    """The disk has no space for a file."""

    exit_code = 1

    def __init__(self, path: Path, nbytes: int | None, free: int) -> None:
        needed = "" if nbytes is None else f", which takes {nbytes / 1e6:,.1f} MB"
        super().__init__(
            f"the disk is full: no room for {str(path)!r}{needed}; {free / 1e6:,.1f} MB are free. Make room, or write "
            "elsewhere"
        )


@contextmanager
def full_disk_errors(path: Path, nbytes: int | None = None) -> Iterator[None]:
    """Convert a writer's errors for a full disk to `DiskFullError`.

    Args:
        path: The file to write.
        nbytes: Its minimum size, if known. PyTorch's writer raises a RuntimeError without a reason; it is taken for a
            full disk if less than this is free.

    Raises:
        DiskFullError: If the disk is full.
    """
    free = shutil.disk_usage(path.parent).free
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(path, nbytes, free) from None
    except RuntimeError:
        if nbytes is None or free >= nbytes:
            raise
        raise DiskFullError(path, nbytes, free) from None
