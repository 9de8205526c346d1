"""Labelled images of a configuration, and the number of training images."""

from typing import TYPE_CHECKING

from unfreeze.config.schema import Config, DataConfig
from unfreeze.data.sources.registry import SOURCES, SourceOptions
from unfreeze.runs.builders.outputs import outputs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unfreeze.data.sources.source import ImageSource
    from unfreeze.models.outputs import Outputs


_MANY_IMAGES = 50
"""Number of images per class from which splits are never too small, so that their sizes can be computed."""


def build_source(config: Config) -> "ImageSource":
    """Return the labelled images of a configuration, with the bands that its network expects.

    Raises:
        UnfreezeError: If there are none, or a package that reads the bands is not installed.
    """
    from unfreeze.data.sources.bands import bands_for

    data = config.data
    options = SourceOptions(
        bands=bands_for(config.model.in_chans),
        root=data.root,
        csv=data.csv,
        columns=data.columns.model_dump() if data.columns is not None else None,
        download=data.download,
    )
    return SOURCES[data.name].load(options)


def count_images(config: Config) -> "tuple[Outputs, int]":
    """Return the model's outputs and the number of training images, without downloads or decoding.

    With many images the split sizes are computed without splitting, whose libraries take long to import.
    """
    import numpy as np

    from unfreeze.data.sources.source import Task

    data, entry = config.data, SOURCES[config.data.name]
    known = entry.train_counts
    if known is not None:
        task = Task("label", tuple(f"class {number}" for number in range(len(known))), np.arange(len(known)))
        return outputs_of(config, [task])[0], _count_train(data, np.array(known), has_test=entry.has_test)
    source = build_source(config)
    outputs = outputs_of(config, source.tasks)[0]
    counts = np.bincount(source.labels[source.splits == "train"])
    can_be_counted = source.groups is None and not source.more_tasks and data.folds is None
    if can_be_counted and len(counts) > 1 and counts.min() >= _MANY_IMAGES:
        given = set(source.splits.tolist())
        return outputs, _count_train(data, counts, has_test="test" in given, has_val="val" in given)
    from unfreeze.runs.builders.splits import build_splits  # its libraries take long to import

    return outputs, len(build_splits(data, source).train)


def _count_train(data: DataConfig, counts: "NDArray[np.int64]", *, has_test: bool, has_val: bool = False) -> int:
    """Return the number of training images from the class counts before missing splits are held out."""
    import numpy as np

    total = int(counts.sum())
    if data.folds is not None:
        held_out = (0 if has_test else round(total * data.test_fraction)) / total
        left = 1 - held_out - (1 - held_out) / data.folds
    else:
        shares = [share for share, has in ((data.test_fraction, has_test), (data.val_fraction, has_val)) if not has]
        left = 1 - sum(round(total * share) for share in shares) / total
    if data.fraction == 1:
        return round(total * left)
    return int(np.maximum(np.round(data.fraction * np.round(counts * left)), 1).sum())
