"""What is asked of a cache: which features of which images, how many versions of each, and where they may go."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L

from unfreeze.cache.folder import CacheFolder
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.training.features.extraction import Kind

JUDGED = Kind(epoch=None, precision="32-true", exact=True)
"""What validation and the test see."""


@dataclass(frozen=True)
class PrefixCacheOptions:
    """What is cached, and where.

    Args:
        folder: Where files go; None for memory alone.
        views: How many augmented views of each training image stand for a new one in each epoch; None for none:
            stages that augment at random see all of their images pass through the whole network.
        exact: Whether features are those of the network itself; if not, a network that is faster and nearly equal
            may compute those that are trained on, never those that are judged.
        sweep: The folder of a sweep whose runs share files, which stay when a stage ends until it has ended; those
            of pooled features always do.
    """

    folder: CacheFolder | None = None
    views: int | None = None
    exact: bool = True
    sweep: Path | None = None


@dataclass(frozen=True, eq=False)
class Demand:
    """Features that a stage may ask for.

    Args:
        kind: Which of each image.
        images: Of which images, each once, shape (n,).
        passes: How often they would pass through the prefix without a cache, all together.
    """

    kind: Kind
    images: Indices
    passes: int


def data_of(trainer: L.Trainer) -> ImageDataModule:
    """Return the data module of a trainer.

    Raises:
        TypeError: If it trains on something else.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageDataModule):
        raise TypeError(f"the cache feeds an ImageDataModule, not a {type(data).__name__}")
    return data


def is_whole(limit: float | None) -> bool:
    """Return whether a trainer's limit of batches leaves all of them."""
    return limit is None or (isinstance(limit, float) and limit == 1.0)
