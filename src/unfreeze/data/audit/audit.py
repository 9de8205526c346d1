"""What a person should know of their images before a model learns from them."""

from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from unfreeze.data.audit.duplicates import Pairs, build_thumbnails, exact_pairs, near_pairs
from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import SPLIT_NAMES, ImageSource, describe_alike
from unfreeze.data.splits.splits import Splits, missing_classes
from unfreeze.data.store.store import ImageStore

AUDIT_SCHEMA = 1
_EXAMPLES = 10
_SMALL_PX = 32


@dataclass(frozen=True)
class Twins:
    """Images that stand in the data more than once.

    Args:
        within: Pairs inside a split, by its name. Of images of equal content, each with the first of them.
        across: Pairs over two splits, by their names, such as "train test". Of images of equal content, each of the
            second split with the first in the other.
        conflicting: Pairs whose labels differ.
        examples: Some pairs of names, those across splits first.
    """

    within: dict[str, int]
    across: dict[str, int]
    conflicting: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class AuditReport:
    """What an audit has found.

    Args:
        name: What a person calls the data.
        images: How many there are.
        classes: Images per split, by class.
        cut: Splits that were cut from train.
        sizes: Smallest, median and largest width and height, in pixels, the number of different sizes, and how many
            images have a side below 32 pixels.
        kinds: Images by format and mode of their files.
        imbalance: Images of the largest class of train for one of the smallest.
        near_empty: Classes of train with fewer than `min_per_class` images.
        min_per_class: See there.
        missing: Classes without images, by split.
        unreadable: Reasons, by the name of a file that can't be read.
        ignored: Files left out by their names.
        notes: What else there is to know of how the data was read.
        alike: Names of classes that differ in case or Unicode form alone, together.
        exact: Images of equal content.
        near: Images that look the same, mirrored or not, equal content left out; None where nobody looked.
        test_in_train: Share of the test images that also stand in train, exactly or nearly, in [0, 1].
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
    exact: Twins
    near: Twins | None
    test_in_train: float

    @property
    def problems(self) -> list[str]:
        """What would mislead a result, a line each."""
        lines = []
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} file{'s' * (len(self.unreadable) > 1)} can't be read")
        lines += map(describe_alike, self.alike)
        for split, classes in self.missing.items():
            lines.append(f"{split} has no images of {', '.join(classes[:_EXAMPLES])}")
        for twins, kind in ((self.exact, "equal"), (self.near, "near-equal")):
            if twins is None:
                continue
            if twins.conflicting:
                lines.append(f"{count_pairs(twins.conflicting)} of {kind} images with different labels")
            for splits, count in twins.across.items():
                first, second = splits.split()
                lines.append(f"{count_pairs(count)} of {kind} images, one in {first} and one in {second}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {"schema": AUDIT_SCHEMA, **asdict(self), "problems": self.problems}


def count_pairs(count: int) -> str:
    """Return a number of pairs in words."""
    return "1 pair" if count == 1 else f"{count:,} pairs"


def audit(
    source: ImageSource, splits: Splits, store: ImageStore, *, min_per_class: int = 20, near: bool = True
) -> AuditReport:
    """Look at labelled images and their splits.

    Args:
        source: The images.
        splits: Which of them train, validate and test, those left out that can't be read.
        store: Their pixels and facts.
        min_per_class: Classes of train with fewer images are reported.
        near: Look for near-equal images too, which takes time by the square of the number of images.
    """
    parts = splits.parts
    counts = {name: np.bincount(source.labels[part], minlength=len(source.classes)) for name, part in parts.items()}
    used = np.sort(np.concatenate(list(parts.values())))
    contents: Indices = np.unique(store.facts.digests, return_inverse=True)[1].astype(np.int64)
    exact = np.concatenate(
        [exact_pairs(contents, parts[a], parts[b]) for a, b in combinations_with_replacement(SPLIT_NAMES, 2)]
    )
    alike = near_pairs(build_thumbnails(store.pixels, used)) if near else exact[:0]
    alike = alike[contents[alike[:, 0]] != contents[alike[:, 1]]]
    train_counts = dict(zip(source.classes, counts["train"].tolist(), strict=True))
    return AuditReport(
        name=source.name,
        images=len(source.images),
        classes={
            name: {split: int(counts[split][label]) for split in SPLIT_NAMES}
            for label, name in enumerate(source.classes)
        },
        cut=splits.cut,
        sizes=_describe_sizes(store),
        kinds=_count_kinds(store),
        imbalance=float(counts["train"].max() / max(1, counts["train"].min())),
        near_empty={name: count for name, count in train_counts.items() if count < min_per_class},
        min_per_class=min_per_class,
        missing={
            split: missing
            for split, part in parts.items()
            if (missing := missing_classes(part, source.labels, source.classes))
        },
        unreadable={source.images.name(index): why for index, why in sorted(store.facts.unreadable.items())},
        ignored=source.ignored,
        notes=source.notes,
        alike=source.alike,
        exact=_describe_pairs(exact, source, parts),
        near=_describe_pairs(alike, source, parts) if near else None,
        test_in_train=_share_in_train(np.concatenate([exact, alike]), parts),
    )


def _describe_pairs(pairs: Pairs, source: ImageSource, parts: dict[str, Indices]) -> Twins:
    split_of = np.full(len(source.images), -1)
    for number, name in enumerate(SPLIT_NAMES):
        split_of[parts[name]] = number
    sides = np.sort(split_of[pairs], axis=1)
    is_across = sides[:, 0] != sides[:, 1]
    labels = source.labels[pairs]
    shown = pairs[np.argsort(~is_across, kind="stable")][:_EXAMPLES]
    return Twins(
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
    """Return the share of the test images that a pair links to train."""
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
