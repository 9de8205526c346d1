"""The cache folder and the options of the feature cache."""

from pathlib import Path

from unfreeze.cache.folder import CacheFolder
from unfreeze.config.schema import CacheConfig
from unfreeze.system.files import cache_root
from unfreeze.training.features.options import PrefixCacheOptions


def cache_folder(cache: CacheConfig) -> Path:
    """Return the cache folder: `cache.dir`, or the user's cache folder."""
    return cache_root(cache.dir)


def prefix_cache_options(cache: CacheConfig, *, sweep: Path | None) -> PrefixCacheOptions:
    """Return what is cached of a frozen prefix, and the folder of the sweep whose other runs will want all of it."""
    folder = CacheFolder(cache_folder(cache), cache.gb)
    return PrefixCacheOptions(folder=folder, views=cache.views, exact=cache.exact, sweep=sweep)
