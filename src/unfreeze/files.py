"""Files that are there whole or not at all, and what runs leave in them."""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError, first_line

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
