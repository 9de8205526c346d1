"""Files that are there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUILDING = ".building-"
"""What the names of files begin with that are being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the place of another at the end; none is left after an error.

    Args:
        path: Of the file that readers see, in a folder that is there.
    """
    building = path.with_name(f"{BUILDING}{secrets.token_hex(4)}-{path.name}")
    try:
        yield building
        os.replace(building, path)
    finally:
        building.unlink(missing_ok=True)
