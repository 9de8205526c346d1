"""Cutting data into train, validation and test, by scikit-learn: stratified where the classes allow it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from unfreeze.errors import UnfreezeError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Splits:
    """Which images train, validate and test; each sorted, pairwise disjoint.

    Args:
        train: Indices of the training images.
        val: Indices of the validation images.
        test: Indices of the test images; empty where no test was asked for.
        cut: Names of the splits that were cut from train.
    """

    train: Indices
    val: Indices
    test: Indices
    cut: tuple[str, ...]


def build_splits(
    given: NDArray[np.str_],
    labels: NDArray[np.int64],
    *,
    val_fraction: float,
    test_fraction: float,
    fraction: float = 1.0,
    seed: int = 0,
) -> Splits:
    """Return the splits of some labelled images.

    Args:
        given: "train", "val" or "test" for each image, shape (N,).
        labels: Shape (N,).
        val_fraction: Share of train to validate on where there is no val, in (0, 1).
        test_fraction: Share of train to test on where there is no test, in [0, 1); 0 for no test.
        fraction: Share of what then remains of train to use, per class, in (0, 1]; smaller ones are in larger ones.
        seed: Decides all draws.

    Raises:
        UnfreezeError: If there are too few images.
    """
    parts = {name: np.flatnonzero(given == name) for name in ("train", "val", "test")}
    train, cut = parts["train"], []
    wanted = {"test": test_fraction, "val": val_fraction}
    counts = {name: max(1, round(share * len(train))) for name, share in wanted.items() if share}
    for name, count in counts.items():
        if not len(parts[name]):
            train, parts[name] = _cut(train, labels, count, name, seed)
            cut.append(name)
    train = _take_fraction(train, labels, fraction, seed)
    return Splits(train=train, val=parts["val"], test=parts["test"], cut=tuple(cut))


def _cut(train: Indices, labels: NDArray[np.int64], count: int, name: str, seed: int) -> tuple[Indices, Indices]:
    """Cut a number of images from train; every class keeps at least one there."""
    classes, sizes = np.unique(labels[train], return_counts=True)
    if count >= len(classes) and sizes.min() >= 2 and len(train) - count >= len(classes):
        kept, taken = train_test_split(train, test_size=count, stratify=labels[train], random_state=seed)
        return np.sort(kept), np.sort(taken)
    spare = _all_but_one_per_class(train, labels, seed)
    if not len(spare):
        raise UnfreezeError(
            f"data: no image left to cut a {name} split from: {len(train)} images in {len(classes)} classes. "
            f"Want at least two more images than classes, or a {name}/ folder"
        )
    order = np.random.default_rng(seed).permutation(spare)
    taken = np.sort(order[: min(count, len(spare))])
    return np.setdiff1d(train, taken), taken


def _all_but_one_per_class(train: Indices, labels: NDArray[np.int64], seed: int) -> Indices:
    order = np.random.default_rng(seed).permutation(train)
    _, first = np.unique(labels[order], return_index=True)
    return np.delete(order, first)


def _take_fraction(train: Indices, labels: NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """Keep the first images of a fixed order per class, so that a smaller share lies within a larger one."""
    if fraction == 1.0:
        return train
    order = np.random.default_rng(seed).permutation(train)
    kept = [
        members[: max(1, round(fraction * len(members)))]
        for members in (order[labels[order] == label] for label in np.unique(labels[train]))
    ]
    return np.sort(np.concatenate(kept))
