"""Audit of labelled images and their splits before training."""

from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from unfreeze.data.audit.duplicates import Pairs, build_thumbnails, exact_pairs, near_pairs
from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import SPLIT_NAMES, ImageSource, describe_similar_names
from unfreeze.data.splits.splits import Splits, missing_classes
from unfreeze.data.store.store import ImageStore

AUDIT_SCHEMA = 1
_EXAMPLES = 10
_SMALL_PX = 32


@dataclass(frozen=True)
class Duplicates:
    """Pairs of duplicate images.

    Args:
        within: Number of pairs inside a split, by its name. Of equal images, each is paired with the first of them.
        across: Number of pairs across two splits, by their names, such as "train test". Of equal images, each in the
            second split is paired with the first in the other.
        conflicting: Number of pairs with different labels.
        examples: Names of some pairs, those across splits first.
    """

    within: dict[str, int]
    across: dict[str, int]
    conflicting: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class AuditReport:
    """Result of an audit.

    Args:
        name: Name of the data.
        images: Number of images.
        classes: Number of images per split, by class.
        cut: Names of the splits that were held out from train.
        sizes: Smallest, median and largest width and height in pixels, the number of different sizes, and the number
            of images with a side below 32 pixels.
        kinds: Number of images by format and mode of their files.
        imbalance: Ratio of the largest to the smallest class of train.
        near_empty: Number of training images of the classes with fewer than `min_per_class`.
        min_per_class: Number of training images below which a class is reported.
        missing: Names of classes without images, by split.
        unreadable: Reasons why files can't be read, by file name.
        ignored: Names of files that are not images.
        notes: Further remarks on how the data was read.
        alike: Groups of class names that differ only in case or Unicode form.
        exact: Images with equal content.
        near: Images that look the same, mirrored or not, without those of `exact`; None if not searched for.
        test_in_train: Share of the test images that have a duplicate in train, exact or near, in [0, 1].
    """

    name: str
    images: int
    classes: dict[str, dict[str, int]]
    cut: tuple[str, ...]
    sizes: dict[str, Any]
    kinds: dict[str, int]
    imbalance: float
    near_empty: dict[str, int]
    min_per_class: int
    missing: dict[str, list[str]]
    unreadable: dict[str, str]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    alike: tuple[tuple[str, ...], ...]
    exact: Duplicates
    near: Duplicates | None
    test_in_train: float

    @property
    def problems(self) -> list[str]:
        """Problems that would make a result misleading, one line each."""
        lines = []
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} file{'s' * (len(self.unreadable) > 1)} can't be read")
        lines += map(describe_similar_names, self.alike)
        for split, classes in self.missing.items():
            lines.append(f"{split} has no images of {', '.join(classes[:_EXAMPLES])}")
        for found, kind in ((self.exact, "equal"), (self.near, "near-equal")):
            if found is None:
                continue
            if found.conflicting:
                lines.append(f"{count_pairs(found.conflicting)} of {kind} images with different labels")
            for splits, count in found.across.items():
                first, second = splits.split()
                lines.append(f"{count_pairs(count)} of {kind} images, one in {first} and one in {second}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {"schema": AUDIT_SCHEMA, **asdict(self), "problems": self.problems}


def count_pairs(count: int) -> str:
    """Return a number of pairs as text, such as "2 pairs"."""
    return "1 pair" if count == 1 else f"{count:,} pairs"


def audit(
    source: ImageSource, splits: Splits, store: ImageStore, *, min_per_class: int = 20, near: bool = True
) -> AuditReport:
    """Return a report on labelled images and their splits.

    Args:
        source: Labelled images.
        splits: Splits of the images, without those that can't be read.
        store: Pixels and facts of the images.
        min_per_class: Number of training images below which a class is reported.
        near: Whether to search for near-equal images, in time that grows with the square of the number of images.
    """
    parts = splits.parts
    exact, close = _find_pairs(store, parts, near=near)
    classes = _count_classes(source, parts)
    train = {name: counts["train"] for name, counts in classes.items()}
    return AuditReport(
        name=source.name,
        images=len(source.images),
        classes=classes,
        cut=splits.from_train,
        sizes=_describe_sizes(store),
        kinds=_count_kinds(store),
        imbalance=float(max(train.values()) / max(1, min(train.values()))),
        near_empty={name: count for name, count in train.items() if count < min_per_class},
        min_per_class=min_per_class,
        missing=_find_missing(source, parts),
        unreadable={source.images.name(index): reason for index, reason in sorted(store.facts.unreadable.items())},
        ignored=source.ignored,
        notes=source.notes,
        alike=source.similar_class_names,
        exact=_describe_pairs(exact, source, parts),
        near=_describe_pairs(close, source, parts) if near else None,
        test_in_train=_share_in_train(np.concatenate([exact, close]), parts),
    )


def _find_pairs(store: ImageStore, parts: dict[str, Indices], *, near: bool) -> tuple[Pairs, Pairs]:
    """Return the pairs of equal images, and of near-equal ones if these are searched for."""
    contents: Indices = np.unique(store.facts.digests, return_inverse=True)[1].astype(np.int64)
    exact = np.concatenate(
        [exact_pairs(contents, parts[a], parts[b]) for a, b in combinations_with_replacement(SPLIT_NAMES, 2)]
    )
    if not near:
        return exact, exact[:0]
    used = np.sort(np.concatenate(list(parts.values())))
    close = near_pairs(build_thumbnails(store.pixels, used))
    return exact, close[contents[close[:, 0]] != contents[close[:, 1]]]


def _count_classes(source: ImageSource, parts: dict[str, Indices]) -> dict[str, dict[str, int]]:
    """Return the number of images per split, by class."""
    counts = {name: np.bincount(source.labels[part], minlength=len(source.classes)) for name, part in parts.items()}
    return {
        name: {split: int(counts[split][label]) for split in SPLIT_NAMES} for label, name in enumerate(source.classes)
    }


def _find_missing(source: ImageSource, parts: dict[str, Indices]) -> dict[str, list[str]]:
    """Return the classes without images, by split."""
    missing = {split: missing_classes(part, source.labels, source.classes) for split, part in parts.items()}
    return {split: names for split, names in missing.items() if names}


def _describe_pairs(pairs: Pairs, source: ImageSource, parts: dict[str, Indices]) -> Duplicates:
    split_of = np.full(len(source.images), -1)
    for number, name in enumerate(SPLIT_NAMES):
        split_of[parts[name]] = number
    sides = np.sort(split_of[pairs], axis=1)
    is_across = sides[:, 0] != sides[:, 1]
    labels = source.labels[pairs]
    shown = pairs[np.argsort(~is_across, kind="stable")][:_EXAMPLES]
    return Duplicates(
        within={name: int((~is_across & (sides[:, 0] == i)).sum()) for i, name in enumerate(SPLIT_NAMES)},
        across={
            f"{SPLIT_NAMES[i]} {SPLIT_NAMES[j]}": count
            for i, j in ((0, 1), (0, 2), (1, 2))
            if (count := int(((sides[:, 0] == i) & (sides[:, 1] == j)).sum()))
        },
        conflicting=int((labels[:, 0] != labels[:, 1]).sum()),
        examples=[(source.images.name(first), source.images.name(second)) for first, second in shown.tolist()],
    )


def _share_in_train(pairs: Pairs, parts: dict[str, Indices]) -> float:
    """Return the share of the test images that are paired with a training image."""
    if not len(parts["test"]):
        return 0.0
    in_train = np.isin(pairs, parts["train"])
    linked = np.concatenate([pairs[in_train[:, 0], 1], pairs[in_train[:, 1], 0]])
    return float(np.isin(parts["test"], linked).mean())


def _describe_sizes(store: ImageStore) -> dict[str, Any]:
    sizes = store.facts.sizes[store.facts.readable]
    return {
        **{
            name: {"width": int(pick(sizes[:, 0])), "height": int(pick(sizes[:, 1]))}
            for name, pick in (("smallest", np.min), ("median", np.median), ("largest", np.max))
        },
        "different": len(np.unique(sizes, axis=0)),
        f"below_{_SMALL_PX}_px": int((sizes.min(axis=1) < _SMALL_PX).sum()),
    }


def _count_kinds(store: ImageStore) -> dict[str, int]:
    facts = store.facts
    counts = np.bincount(facts.kind_of[facts.readable], minlength=len(facts.kinds))
    return {facts.kinds[kind]: int(counts[kind]) for kind in np.argsort(-counts, kind="stable") if counts[kind]}
