"""The end of a command line that is refused: one line on stderr, and an exit code."""

import sys
from typing import NoReturn

from unfreeze.errors import UnfreezeError


def refuse(error: UnfreezeError) -> NoReturn:
    """Print an error in one line, and end the process with its exit code."""
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(error.exit_code) from None
