"""Stratified splits of images without groups: each class has its share to within one image."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError

Counts = NDArray[np.int64]


def split_images(
    train: Indices, labels: NDArray[np.int64], *, shares: dict[str, float], keep: int, seed: int
) -> dict[str, Indices]:
    """Return train and the splits held out from it, each sorted.

    Args:
        train: Images to split.
        labels: Labels of all images, from 0.
        shares: Share of train for each new split, in (0, 1); each split gets at least one image.
        keep: Number of images of each class that stay in train, if the class has so many.
        seed: Seed of the draws.

    Raises:
        UnfreezeError: If a split would have no image.
    """
    sizes = _count(labels[train], labels)
    parts = {"train": train}
    pending = dict(shares)
    for name, share in shares.items():
        del pending[name]
        rest = parts["train"]
        room = (_count(labels[rest], labels) - keep).clip(0)
        # Reserved for the pending splits, or their shares could not be within one image.
        reserved = np.sum([np.ceil(later * sizes - 1).clip(0) for later in pending.values()], axis=0, dtype=np.int64)
        room = (room - reserved).clip(0) if (room > reserved).any() else room
        if not room.any():
            raise UnfreezeError(
                f"data: no image left for a {name} split: {len(train)} images in {np.count_nonzero(sizes)} classes. "
                f"Want at least two more images than classes, or a {name}/ folder"
            )
        count = max(1, round(share * len(train)))
        drawn = _draw_by_library(rest, labels, count, seed)
        if drawn is None or not _is_within(_count(labels[drawn], labels), share * sizes, room):
            random = np.random.default_rng([seed, len(pending)])
            quotas = _quotas(share * sizes, room, count, random)
            drawn = _first_of_each_class(random.permutation(rest), labels, quotas)
        parts[name] = drawn
        parts["train"] = np.setdiff1d(rest, drawn, assume_unique=True)
    return parts


def fold_images(pool: Indices, labels: NDArray[np.int64], *, folds: int, fold: int, seed: int) -> dict[str, Indices]:
    """Return one fold of a pool as val and the other folds as train, each sorted.

    Raises:
        UnfreezeError: If a class has only one image, or no class has an image for each fold.
    """
    sizes = _count(labels[pool], labels)
    singletons = np.count_nonzero(sizes == 1)
    if singletons:
        raise UnfreezeError(
            f"data.folds: {singletons} of {np.count_nonzero(sizes)} classes have only one image, which can't be in "
            "both train and val; add images, or type data.folds=null data.fold=null"
        )
    if sizes.max(initial=0) < folds:
        raise UnfreezeError(
            f"data.folds: got {folds}, but no class has more than {sizes.max(initial=0)} images; "
            f"want no more folds than that, such as data.folds={max(2, sizes.max(initial=0))}"
        )
    with warnings.catch_warnings():
        # A class with fewer images than folds is absent from some of them.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        positions = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(pool, labels[pool]))
    train, val = positions[fold]
    return {"train": pool[train], "val": pool[val]}


def thin_images(train: Indices, labels: NDArray[np.int64], *, fraction: float, seed: int) -> Indices:
    """Return a share of each class, at least one image; a larger share includes the images of a smaller one."""
    order = np.random.default_rng(seed).permutation(train)
    sizes = _count(labels[train], labels)
    return _first_of_each_class(order, labels, np.maximum(np.round(fraction * sizes).astype(np.int64), 1))


def _count(some: NDArray[np.int64], labels: NDArray[np.int64]) -> Counts:
    return np.bincount(some, minlength=labels.max(initial=-1) + 1)


def _is_within(drawn: Counts, wanted: NDArray[np.floating], room: Counts) -> bool:
    """Return whether a draw is within one image of each class's share, and within the room of each class."""
    return bool((np.abs(drawn - wanted) <= 1).all() and (drawn <= room).all())


def _draw_by_library(rest: Indices, labels: NDArray[np.int64], count: int, seed: int) -> Indices | None:
    """Return a stratified draw of scikit-learn; None if it refuses so few images or such small classes."""
    sizes = np.unique(labels[rest], return_counts=True)[1]
    if min(count, len(rest) - count) < len(sizes) or sizes.min() < 2:
        return None
    _, drawn = train_test_split(rest, test_size=count, stratify=labels[rest], random_state=seed)
    return np.sort(drawn)


def _quotas(wanted: NDArray[np.floating], room: Counts, count: int, random: np.random.Generator) -> Counts:
    """Return the number of images to draw from each class, by systematic sampling (Madow 1949).

    Each number is within one of the class's share, and their sum is as near to `count` as possible.
    """
    order = random.permutation(len(wanted))
    edges = np.floor(np.cumsum(wanted[order]) + random.random()).astype(np.int64)
    quotas = np.empty(len(wanted), dtype=np.int64)
    quotas[order] = np.diff(edges, prepend=0)
    quotas = np.minimum(quotas, room)
    missing = count - quotas.sum()
    step = int(np.sign(missing))
    allowed = (quotas < room) & (quotas <= wanted) if step > 0 else (quotas > 0) & (quotas >= wanted)
    # The classes that are furthest from their share come first.
    candidates = order[np.argsort(step * (quotas - wanted)[order], kind="stable")]
    quotas[candidates[allowed[candidates]][: abs(missing)]] += step
    return quotas


def _first_of_each_class(order: Indices, labels: NDArray[np.int64], quotas: Counts) -> Indices:
    """Return the first images of each class in the given order, as many as its quota, sorted."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    class_of = labels[by_class]
    starts = np.searchsorted(class_of, np.arange(len(quotas)))
    rank = np.arange(len(by_class)) - starts[class_of]
    return np.sort(by_class[rank < quotas[class_of]])
