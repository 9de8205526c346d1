"""The splits of a configuration."""

from pathlib import Path

from unfreeze.config.schema import DataConfig
from unfreeze.data.sources.images import FileImages
from unfreeze.data.sources.source import SPLIT_NAMES, ImageSource
from unfreeze.data.splits.splits import Splits, split_source
from unfreeze.errors import UnfreezeError


def _hint_at_folder(data: DataConfig, only: str) -> str:
    """Return a hint for class folders that are deeper than expected."""
    if data.name != "imagefolder" or data.root is None:
        return ""
    inner = Path(data.root).expanduser() / only
    folders = [each.name for each in sorted(inner.iterdir()) if each.is_dir()] if inner.is_dir() else []
    if len(folders) > 1 or set(folders) & set(SPLIT_NAMES):
        return f"; {inner} has {', '.join(folders[:5])}: type data.root={inner}"
    return ". Want a folder per class, with its images in it"


def build_splits(data: DataConfig, source: ImageSource) -> Splits:
    """Return the splits of a configuration.

    Raises:
        UnfreezeError: If there are not enough images for them, or nothing to tell apart.
    """
    for task in source.tasks:
        if len(task.classes) < 2:
            raise UnfreezeError(
                f"data: {source.name} has one class of {task.name!r}, {task.classes[0]!r}; want two or more to tell "
                f"apart{_hint_at_folder(data, task.classes[0])}"
            )
    try:
        return split_source(
            source,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            fraction=data.fraction,
            folds=data.folds,
            fold=data.fold,
            seed=data.seed,
        )
    except UnfreezeError as error:
        is_about_images = str(error).startswith("data:")  # others name the key that is wrong
        if is_about_images and isinstance(source.images, FileImages):
            source.images.check_any_exists()
        raise
