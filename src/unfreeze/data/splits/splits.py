"""Cutting data into train, validation and test, by scikit-learn: stratified, by groups where there are some."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import SPLIT_NAMES, ImageSource
from unfreeze.data.splits.grouped import cut_groups, fold_groups, thin_groups
from unfreeze.data.splits.stratified import cut_images, fold_images, thin_images

_SCHEMA = 1


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

    @property
    def parts(self) -> dict[str, Indices]:
        """The images of each split, by its name."""
        return {name: getattr(self, name) for name in SPLIT_NAMES}

    def without(self, left_out: Indices) -> "Splits":
        """Return the splits without some images."""
        return Splits(cut=self.cut, **{name: np.setdiff1d(images, left_out) for name, images in self.parts.items()})


def split_source(
    source: ImageSource,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    fraction: float = 1.0,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> Splits:
    """Return the splits of a source, stratified by all its tasks, its groups kept whole; see `build_splits`."""
    return build_splits(
        source.splits,
        source.strata,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        fraction=fraction,
        folds=folds,
        fold=fold,
        groups=source.groups,
        seed=seed,
    )


def build_splits(
    given: NDArray[np.str_],
    labels: NDArray[np.int64],
    *,
    val_fraction: float,
    test_fraction: float,
    fraction: float = 1.0,
    folds: int | None = None,
    fold: int | None = None,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Splits:
    """Return the splits of some labelled images.

    Without groups, what is cut has within one image of its share of each class. With groups no group is torn apart,
    and shares are as near as the groups allow. Either way every class that can stay in train does.

    Args:
        given: "train", "val" or "test" for each image, shape (N,).
        labels: What to stratify by, from 0, shape (N,).
        val_fraction: Share of train to validate on where there is no val, in (0, 1).
        test_fraction: Share of train to test on where there is no test, in [0, 1); 0 for no test.
        fraction: Share of what then remains of train to use, per class, in (0, 1]; smaller ones are in larger ones.
        folds: Validate on one of so many parts of all that is not test, a given val included; at least 2.
        fold: Which of them, in [0, folds).
        groups: What must not be torn apart, shape (N,).
        seed: Decides all draws.

    Raises:
        UnfreezeError: If there are too few images, or too few groups.
    """
    parts = {name: np.flatnonzero(given == name) for name in SPLIT_NAMES}
    wanted = {"test": test_fraction} if folds else {"test": test_fraction, "val": val_fraction}
    shares = {name: share for name, share in wanted.items() if share and not len(parts[name])}
    ways = _by_images(keep=2 if folds else 1) if groups is None else _by_groups(groups)
    parts |= ways.cut(parts["train"], labels, shares=shares, seed=seed)
    cut = tuple(shares)
    if folds is not None:
        assert fold is not None
        pool = np.sort(np.concatenate([parts["train"], parts["val"]]))
        parts |= ways.fold(pool, labels, folds=folds, fold=fold, seed=seed)
        cut += ("val",)
    if fraction < 1:
        parts["train"] = ways.thin(parts["train"], labels, fraction=fraction, seed=seed)
    return Splits(train=parts["train"], val=parts["val"], test=parts["test"], cut=cut)


class _Ways(NamedTuple):
    cut: Callable[..., dict[str, Indices]]
    fold: Callable[..., dict[str, Indices]]
    thin: Callable[..., Indices]


def _by_images(keep: int) -> _Ways:
    return _Ways(partial(cut_images, keep=keep), fold_images, thin_images)


def _by_groups(groups: NDArray[np.int64]) -> _Ways:
    return _Ways(
        partial(cut_groups, groups=groups), partial(fold_groups, groups=groups), partial(thin_groups, groups=groups)
    )


def missing_classes(indices: Indices, labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """Return the classes that a split has no images of; none for a split that is empty as a whole.

    Args:
        indices: The images of the split.
        labels: Of all images, in [0, len(classes)), shape (N,).
        classes: Their names.
    """
    counts = np.bincount(labels[indices], minlength=len(classes))
    return [classes[label] for label in np.flatnonzero(counts == 0).tolist()] if len(indices) else []


def describe_splits(
    splits: Splits,
    labels: NDArray[np.int64],
    *,
    classes: Sequence[str],
    digests: NDArray[np.void],
    seed: int,
) -> dict[str, Any]:
    """Return what proves, later and elsewhere, which images were in which split.

    Args:
        splits: What to describe.
        labels: In [0, len(classes)), shape (N,).
        classes: Names of the classes.
        digests: A hash of each image's content, V16, shape (N,).
        seed: What the splits were cut by.

    Returns:
        What JSON can hold: for each split the number of images, in all and per class, whether it was cut from train,
        and a hash of the sorted pairs of digest and label, the same whatever the images' order and place.
    """
    described = {}
    for name, indices in splits.parts.items():
        counts = np.bincount(labels[indices], minlength=len(classes)).tolist()
        described[name] = {
            "count": len(indices),
            "hash": _hash_of_members(digests[indices], labels[indices]),
            "classes": dict(zip(classes, counts, strict=True)),
            "cut_from_train": name in splits.cut,
        }
    return {"schema": _SCHEMA, "seed": seed, "splits": described}


def judged_differently(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return which of the splits that judge a run, val and test, have other images or labels than another run's.

    What has learnt from the one may know the other's answers.

    Args:
        ours: What `describe_splits` said of a run.
        theirs: What it said of the other.
    """
    return [name for name in ("val", "test") if ours["splits"][name]["hash"] != theirs["splits"][name]["hash"]]


def _hash_of_members(digests: NDArray[np.void], labels: NDArray[np.int64]) -> str:
    pairs = np.empty((len(labels), 3), dtype=">u8")
    pairs[:, :2] = np.ascontiguousarray(digests).view(">u8").reshape(-1, 2)
    pairs[:, 2] = labels
    return blake2b(pairs[np.lexsort(pairs.T[::-1])].tobytes(), digest_size=16).hexdigest()
