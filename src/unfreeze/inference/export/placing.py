"""Atomic writing of several files."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.system.files import BUILDING


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files are moved to another folder at the end; after an error, none are.

    Args:
        folder: The destination; it is created if its parent exists.

    Raises:
        UnfreezeError: If the destination is not writable.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder))
    except OSError as error:
        raise UnfreezeError(f"--out: can't write to {str(folder)!r} ({error.strerror}); name another place") from None
    try:
        yield building
        # Longer names first: files of weights have to exist before the file that refers to them.
        for file in sorted(building.iterdir(), key=lambda file: len(file.name), reverse=True):
            os.replace(file, folder / file.name)
        is_new = False
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if is_new:
            folder.rmdir()
