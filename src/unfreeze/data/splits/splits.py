"""Train, validation and test splits by scikit-learn: stratified, and by groups where the data has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import SPLIT_NAMES, ImageSource
from unfreeze.data.splits.grouped import fold_groups, split_groups, thin_groups
from unfreeze.data.splits.stratified import fold_images, split_images, thin_images

_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices of the images of each split: sorted, pairwise disjoint.

    Args:
        train: Indices of the training images.
        val: Indices of the validation images.
        test: Indices of the test images; empty if there is no test split.
        from_train: Names of the splits that were held out from train.
    """

    train: Indices
    val: Indices
    test: Indices
    from_train: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Indices]:
        """Indices of the images by split name."""
        return {name: getattr(self, name) for name in SPLIT_NAMES}

    def without(self, excluded: Indices) -> "Splits":
        """Return the splits without the excluded images."""
        parts = {name: np.setdiff1d(images, excluded) for name, images in self.parts.items()}
        return Splits(from_train=self.from_train, **parts)


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
    """Return the splits of a source, stratified by all its tasks, with whole groups; see `build_splits`."""
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
    """Return the splits of labelled images.

    Each split has its share of each class to within one image; with groups, as nearly as whole groups allow.

    Args:
        given: "train", "val" or "test" for each image, shape (N,).
        labels: Labels to stratify by, from 0, shape (N,).
        val_fraction: Share of train held out if there is no val split, in (0, 1).
        test_fraction: Share of train held out if there is no test split, in [0, 1); 0 for no test split.
        fraction: Share of the rest of train to use, per class, in (0, 1]; a larger one includes the smaller ones.
        folds: Number of folds of all images but those of test, an existing val split included; at least 2.
        fold: The fold to validate on, in [0, folds).
        groups: Group of each image, shape (N,); None for no groups.
        seed: Seed of all draws.

    Raises:
        UnfreezeError: If there are too few images or groups.
    """
    parts = {name: np.flatnonzero(given == name) for name in SPLIT_NAMES}
    splitter = _by_images(keep=2 if folds else 1) if groups is None else _by_groups(groups)
    wanted = {"test": test_fraction} if folds else {"test": test_fraction, "val": val_fraction}
    shares = {name: share for name, share in wanted.items() if share and not len(parts[name])}
    parts |= splitter.split(parts["train"], labels, shares=shares, seed=seed)
    if folds is not None:
        parts |= splitter.fold(_pool(parts), labels, folds=folds, fold=fold, seed=seed)
    if fraction < 1:
        parts["train"] = splitter.thin(parts["train"], labels, fraction=fraction, seed=seed)
    return Splits(**parts, from_train=(*shares, "val") if folds else tuple(shares))


class _Splitter(NamedTuple):
    split: Callable[..., dict[str, Indices]]
    fold: Callable[..., dict[str, Indices]]
    thin: Callable[..., Indices]


def _by_images(keep: int) -> _Splitter:
    return _Splitter(partial(split_images, keep=keep), fold_images, thin_images)


def _by_groups(groups: NDArray[np.int64]) -> _Splitter:
    return _Splitter(
        partial(split_groups, groups=groups), partial(fold_groups, groups=groups), partial(thin_groups, groups=groups)
    )


def _pool(parts: Mapping[str, Indices]) -> Indices:
    """Return the images that cross-validation divides into folds."""
    return np.sort(np.concatenate([parts["train"], parts["val"]]))


def missing_classes(indices: Indices, labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """Return the classes without images in a split; none if the whole split is empty.

    Args:
        indices: The images of the split.
        labels: Labels of all images, in [0, len(classes)), shape (N,).
        classes: Names of the classes.
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
    """Return a record of the splits that identifies the images of each, for a JSON file.

    Args:
        splits: The splits.
        labels: Labels of all images, in [0, len(classes)), shape (N,).
        classes: Names of the classes.
        digests: Hash of each image's content, V16, shape (N,).
        seed: Seed of the splits.

    Returns:
        For each split the number of images, in all and per class, a flag for being held out from train, and a hash of
        the sorted pairs of digest and label, which does not depend on the order or the folder of the images.
    """
    described = {}
    for name, indices in splits.parts.items():
        counts = np.bincount(labels[indices], minlength=len(classes)).tolist()
        described[name] = {
            "count": len(indices),
            "hash": _hash_of_members(digests[indices], labels[indices]),
            "classes": dict(zip(classes, counts, strict=True)),
            "cut_from_train": name in splits.from_train,
        }
    return {"schema": _SCHEMA, "seed": seed, "splits": described}


def differing_splits(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the names of the held-out splits, val and test, whose images or labels differ between two runs.

    The held-out images of one run may then be training images of the other.

    Args:
        ours: Record of a run, from `describe_splits`.
        theirs: Record of the other run.
    """
    return [name for name in ("val", "test") if ours["splits"][name]["hash"] != theirs["splits"][name]["hash"]]


def _hash_of_members(digests: NDArray[np.void], labels: NDArray[np.int64]) -> str:
    pairs = np.empty((len(labels), 3), dtype=">u8")
    pairs[:, :2] = np.ascontiguousarray(digests).view(">u8").reshape(-1, 2)
    pairs[:, 2] = labels
    return blake2b(pairs[np.lexsort(pairs.T[::-1])].tobytes(), digest_size=16).hexdigest()
