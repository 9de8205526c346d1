"""Requests to the feature cache: kinds of features, and of which images."""

from dataclasses import dataclass

import lightning as L

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.training.features.extraction import Kind

JUDGED = Kind(epoch=None, precision="32-true", exact=True)
"""What validation and the test see."""


@dataclass(frozen=True, eq=False)
class Demand:
    """Features that a stage may use.

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
