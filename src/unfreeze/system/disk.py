"""A full disk, told in a line: what was written, how much it takes, and how much is free."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unfreeze.errors import UnfreezeError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(UnfreezeError):
    """There is no room for a file."""

    exit_code = 1

    def __init__(self, path: Path, nbytes: int | None, free: int) -> None:
        needed = "" if nbytes is None else f", which takes {nbytes / 1e6:,.1f} MB"
        super().__init__(
            f"the disk is full: no room for {str(path)!r}{needed}; {free / 1e6:,.1f} MB are free. Make room, or write "
            "elsewhere"
        )


@contextmanager
def telling_full_disk(path: Path, nbytes: int | None = None) -> Iterator[None]:
    """Raise one error for a full disk, whatever the writer makes of it.

    Args:
        path: The file that is written.
        nbytes: The least that it takes, where that is known. PyTorch's writer fails with a RuntimeError that does not
            name its reason; it is a full disk where less than that is free.

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
