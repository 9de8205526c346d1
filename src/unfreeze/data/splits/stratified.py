"""Splits of images that belong to no groups: within one image of its share of each class."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError

Counts = NDArray[np.int64]


def cut_images(
    train: Indices, labels: NDArray[np.int64], *, shares: dict[str, float], keep: int, seed: int
) -> dict[str, Indices]:
    """Return train and what was cut from it, each sorted.

    Args:
        train: What to cut from.
        labels: Of all images, from 0.
        shares: Share of train for each split to cut, in (0, 1); each gets one image at least.
        keep: Number of images of each class that stay in train, where the class has so many.
        seed: Decides the draws.

    Raises:
        UnfreezeError: If a split would have no image.
    """
    sizes = _count(labels[train], labels)
    parts = {"train": train}
    waiting = dict(shares)
    for name, share in shares.items():
        del waiting[name]
        rest = parts["train"]
        room = (_count(labels[rest], labels) - keep).clip(0)
        # What the splits to come must find, or their shares could not be within one image.
        due = np.sum([np.ceil(later * sizes - 1).clip(0) for later in waiting.values()], axis=0, dtype=np.int64)
        room = (room - due).clip(0) if (room > due).any() else room
        if not room.any():
            raise UnfreezeError(
                f"data: no image left to cut a {name} split from: {len(train)} images in {np.count_nonzero(sizes)} "
                f"classes. Want at least two more images than classes, or a {name}/ folder"
            )
        count = max(1, round(share * len(train)))
        taken = _draw_by_library(rest, labels, count, seed)
        if taken is None or not _holds(_count(labels[taken], labels), share * sizes, room):
            random = np.random.default_rng([seed, len(waiting)])
            quotas = _quotas(share * sizes, room, count, random)
            taken = _first_of_each_class(random.permutation(rest), labels, quotas)
        parts[name] = taken
        parts["train"] = np.setdiff1d(rest, taken, assume_unique=True)
    return parts


def fold_images(pool: Indices, labels: NDArray[np.int64], *, folds: int, fold: int, seed: int) -> dict[str, Indices]:
    """Return one of several parts of a pool as val, the others as train, each sorted.

    Raises:
        UnfreezeError: If a class has one image only, or none has an image for each fold.
    """
    sizes = _count(labels[pool], labels)
    alone = np.count_nonzero(sizes == 1)
    if alone:
        raise UnfreezeError(
            f"data.folds: {alone} of {np.count_nonzero(sizes)} classes have one image only, which can't both train and "
            "validate; add images, or type data.folds=null data.fold=null"
        )
    if sizes.max(initial=0) < folds:
        raise UnfreezeError(
            f"data.folds: got {folds}, but no class has more than {sizes.max(initial=0)} images; "
            f"want no more folds than that, such as data.folds={max(2, sizes.max(initial=0))}"
        )
    with warnings.catch_warnings():
        # A class with fewer images than folds is absent from some of them.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        cuts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(pool, labels[pool]))
    kept, taken = cuts[fold]
    return {"train": pool[kept], "val": pool[taken]}


def thin_images(train: Indices, labels: NDArray[np.int64], *, fraction: float, seed: int) -> Indices:
    """Keep a share of each class, one image at least; what a smaller share keeps, a larger one does too."""
    order = np.random.default_rng(seed).permutation(train)
    sizes = _count(labels[train], labels)
    return _first_of_each_class(order, labels, np.maximum(np.round(fraction * sizes).astype(np.int64), 1))


def _count(some: NDArray[np.int64], labels: NDArray[np.int64]) -> Counts:
    return np.bincount(some, minlength=labels.max(initial=-1) + 1)


def _holds(taken: Counts, wanted: NDArray[np.floating], room: Counts) -> bool:
    """Return whether a draw is within one image of what was wanted of each class, and leaves what must stay."""
    return bool((np.abs(taken - wanted) <= 1).all() and (taken <= room).all())


def _draw_by_library(rest: Indices, labels: NDArray[np.int64], count: int, seed: int) -> Indices | None:
    """Draw by scikit-learn, where it can draw so few from such classes."""
    sizes = np.unique(labels[rest], return_counts=True)[1]
    if min(count, len(rest) - count) < len(sizes) or sizes.min() < 2:
        return None
    _, taken = train_test_split(rest, test_size=count, stratify=labels[rest], random_state=seed)
    return np.sort(taken)


def _quotas(wanted: NDArray[np.floating], room: Counts, count: int, random: np.random.Generator) -> Counts:
    """Return how many images of each class to take, within one of what is wanted, in all as near to count as can be.

    Systematic sampling (Madow 1949): of classes that want a part of an image, such a part gets one.
    """
    order = random.permutation(len(wanted))
    edges = np.floor(np.cumsum(wanted[order]) + random.random()).astype(np.int64)
    quotas = np.empty(len(wanted), dtype=np.int64)
    quotas[order] = np.diff(edges, prepend=0)
    quotas = np.minimum(quotas, room)
    missing = count - quotas.sum()
    step = int(np.sign(missing))
    allowed = (quotas < room) & (quotas <= wanted) if step > 0 else (quotas > 0) & (quotas >= wanted)
    # The classes that are the furthest from what they want come first.
    candidates = order[np.argsort(step * (quotas - wanted)[order], kind="stable")]
    quotas[candidates[allowed[candidates]][: abs(missing)]] += step
    return quotas


def _first_of_each_class(order: Indices, labels: NDArray[np.int64], quotas: Counts) -> Indices:
    """Return, sorted, so many images of each class as its quota says, the first in the given order."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    of = labels[by_class]
    starts = np.searchsorted(of, np.arange(len(quotas)))
    rank = np.arange(len(by_class)) - starts[of]
    return np.sort(by_class[rank < quotas[of]])
