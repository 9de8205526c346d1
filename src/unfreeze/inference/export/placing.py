"""Several files that are put in their place together, or not at all."""

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
    """Yield a folder to write files into, which take the places of others at the end; none is left after an error.

    Args:
        folder: Where they go; it is made where only its last part is missing.

    Raises:
        UnfreezeError: If nothing can be written there.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder))
    except OSError as error:
        raise UnfreezeError(f"--out: can't write to {str(folder)!r} ({error.strerror}); name another place") from None
    try:
        yield building
        # Sidecars first: what refers to them must not be there before they are.
        for file in sorted(building.iterdir(), key=lambda file: len(file.name), reverse=True):
            os.replace(file, folder / file.name)
        is_new = False
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if is_new:
            folder.rmdir()
