"""Where things lie in a run's directory."""

from pathlib import Path

from unfreeze.errors import UnfreezeError

BEST = "best.ckpt"
"""The checkpoint whose figures are those of a run's result."""

LAST = "last.ckpt"
"""The checkpoint that a run is resumed from."""


def checkpoints_of(run_dir: Path) -> Path:
    """Return the folder of the checkpoints."""
    return run_dir / "checkpoints"


def best_of(run_dir: Path) -> Path:
    """Return the best checkpoint."""
    return checkpoints_of(run_dir) / BEST


def last_of(run_dir: Path) -> Path:
    """Return the last checkpoint."""
    return checkpoints_of(run_dir) / LAST


def check_checkpoint(file: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        UnfreezeError: Saying what is wanted.
    """
    if not file.is_file():
        raise UnfreezeError(f"no checkpoint {str(file)!r}; want a .ckpt file or the directory of a run that has one")


def run_dir_of(path: Path) -> Path | None:
    """Return the directory of the run that is meant, or that a checkpoint lies in; None where it lies in none."""
    path = path.expanduser().absolute()
    return next((folder for folder in (path, *path.parents[:2]) if (folder / "splits.json").is_file()), None)
