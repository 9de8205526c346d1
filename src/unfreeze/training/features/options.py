"""Options of the feature cache."""

from dataclasses import dataclass
from pathlib import Path

from unfreeze.cache.folder import CacheFolder


@dataclass(frozen=True)
class PrefixCacheOptions:
    """Options of the feature cache.

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
