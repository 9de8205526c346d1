"""Splits by groups: all images of a group, such as a patient or a video, are in one split."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError

# scikit-learn tries each fold for each group; above this number of trials, groups are bundled first.
_MOST_TRIALS = 4000
_MOST_FOLDS = 100
_ENOUGH_FOLDS = 20


@dataclass(frozen=True, eq=False)
class _Table:
    """Numbers of images per class and group, without zeros, sorted by class and then by group.

    Args:
        members: Indices of the images, shape (N,).
        labels: Labels of the members, shape (N,).
        groups: Groups of the members, numbered from 0, shape (N,).
        pair_labels: Class of each pair of a class and a group, shape (P,).
        pair_groups: Group of each pair, shape (P,).
        pair_counts: Number of images of each pair, shape (P,).
    """

    members: Indices
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    pair_labels: NDArray[np.int64]
    pair_groups: NDArray[np.int64]
    pair_counts: NDArray[np.int64]

    @cached_property
    def group_sizes(self) -> NDArray[np.int64]:
        """Number of images of each group, shape (G,)."""
        return np.bincount(self.groups)

    @cached_property
    def groups_per_class(self) -> NDArray[np.int64]:
        """Number of groups with images of each class, shape (C,)."""
        return np.bincount(self.pair_labels)

    def sole_groups(self) -> NDArray[np.bool_]:
        """Return a mask of the groups that have all images of some class, shape (G,)."""
        found = np.zeros(self.groups.max(initial=-1) + 1, dtype=np.bool_)
        found[self.pair_groups[self.groups_per_class[self.pair_labels] == 1]] = True
        return found

    def groups_of(self, label: int) -> NDArray[np.int64]:
        """Return the groups with images of a class, the smallest first."""
        start, end = np.searchsorted(self.pair_labels, (label, label + 1))
        groups = self.pair_groups[start:end]
        return groups[np.argsort(self.group_sizes[groups], kind="stable")]

    def classes_in(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask of the classes in the chosen groups, shape (C,)."""
        found = np.zeros(len(self.groups_per_class), dtype=np.bool_)
        found[self.pair_labels[chosen[self.pair_groups]]] = True
        return found


def split_groups(
    train: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, shares: dict[str, float], seed: int
) -> dict[str, Indices]:
    """Return train and the splits held out from it, each sorted, with whole groups.

    Train keeps every class, and so the groups that have all images of a class.

    Args:
        train: Images to split.
        labels: Labels of all images, from 0.
        groups: Groups of all images.
        shares: Share of train for each new split, in (0, 1), met as nearly as the groups allow.
        seed: Seed of the draws.

    Raises:
        UnfreezeError: If there are too few groups.
    """
    if not shares:
        return {"train": train}
    table = _tabulate(train, labels, groups)
    free = ~table.sole_groups()
    targets = [share * len(train) for share in shares.values()]
    count = int(np.count_nonzero(free))
    if min(len(free) - 1, count) >= len(shares):
        fold_of = _assign_folds(table, free, _fold_count(shares, count), seed)
        # A class that train would lose costs as much as a group of average size, then more than any deviation.
        for penalty in (len(train) / len(free), len(train)):
            split_of = _choose_folds(table, fold_of, targets, penalty)
            _return_surplus(table, split_of, targets, seed)
            _return_lost_classes(table, split_of)
            if len(np.unique(split_of)) == 1 + len(shares):
                return {name: train[split_of[table.groups] == i] for i, name in enumerate(["train", *shares])}
    raise UnfreezeError(
        f"data: {len(free)} groups ({len(free) - count} of them with all images of a class, which stay in train) "
        f"are too few for {' and '.join(shares)}; want more groups, a split column, or "
        f"{'data.test_fraction=0' if 'test' in shares and len(shares) > 1 else 'no groups: data.columns.group=false'}"
    )


def fold_groups(
    pool: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, folds: int, fold: int, seed: int
) -> dict[str, Indices]:
    """Return one fold of a pool as val and the other folds as train, with whole groups.

    Raises:
        UnfreezeError: If there are fewer groups than folds, or train would lack a class.
    """
    table = _tabulate(pool, labels, groups)
    count = len(table.group_sizes)
    if count < folds:
        hint = f"data.folds={count}" if count >= 2 else "data.folds=null data.fold=null"
        raise UnfreezeError(f"data.folds: got {folds}, but there are {count} groups; want no more, such as {hint}")
    sole = np.count_nonzero(table.groups_per_class == 1)
    if sole:
        raise UnfreezeError(
            f"data.folds: {sole} of {np.count_nonzero(table.groups_per_class)} classes are in only one group, which "
            "can't be in both train and val; type data.folds=null data.fold=null"
        )
    fold_of = _assign_folds(table, np.ones(count, dtype=np.bool_), folds, seed)
    _spread_classes(table, fold_of, folds)
    if (table.classes_in(fold_of != fold) < table.classes_in(fold_of == fold)).any():
        raise UnfreezeError(f"data.fold: {fold} has all groups of some class; type another data.seed, or fewer folds")
    is_val = fold_of[table.groups] == fold
    return {"train": pool[~is_val], "val": pool[is_val]}


def thin_groups(
    train: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, fraction: float, seed: int
) -> Indices:
    """Return whole groups with about a share of each class, at least one image.

    A larger share includes the groups of a smaller one.
    """
    table = _tabulate(train, labels, groups)
    sizes = table.group_sizes
    rank = np.random.default_rng(seed).permutation(len(sizes))
    largest_last = np.lexsort((table.pair_counts, table.pair_groups))
    main_class = np.zeros(len(sizes), dtype=np.int64)
    main_class[table.pair_groups[largest_last]] = table.pair_labels[largest_last]
    order = np.lexsort((rank, main_class))
    before = np.cumsum(sizes[order]) - sizes[order]
    starts = np.searchsorted(main_class[order], main_class[order])
    before -= before[starts]
    class_sizes = np.bincount(main_class, weights=sizes)[main_class[order]]
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[order[before + sizes[order] / 2 <= fraction * class_sizes]] = True
    by_rank = np.lexsort((rank[table.pair_groups], table.pair_labels))
    _, first = np.unique(table.pair_labels[by_rank], return_index=True)
    chosen[table.pair_groups[by_rank][first]] = True
    return train[chosen[table.groups]]


def _tabulate(members: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> _Table:
    known, numbers = np.unique(groups[members], return_inverse=True)
    pairs, counts = np.unique(labels[members] * len(known) + numbers, return_counts=True)
    pair_labels, pair_groups = np.divmod(pairs, max(1, len(known)))
    return _Table(members, labels[members], numbers, pair_labels, pair_groups, counts)


def _fold_count(shares: dict[str, float], groups: int) -> int:
    """Return the number of folds for which whole folds come nearest to the shares."""
    smallest = min(shares.values())
    if smallest < 1 / _ENOUGH_FOLDS:
        return min(groups, _MOST_FOLDS, round(1 / smallest))
    errors = [
        sum(abs(round(share * count) / count - share) for share in shares.values())
        for count in range(len(shares) + 1, _ENOUGH_FOLDS + 1)
    ]
    enough = next(i for i, error in enumerate(errors) if error <= min(errors) + 0.005)
    return min(groups, len(shares) + 1 + enough)


def _assign_folds(table: _Table, free: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each group, shape (G,); -1 for groups that are not free."""
    random = np.random.default_rng(seed)
    fold_of = np.full(len(free), -1)
    count = np.count_nonzero(free)
    if count <= folds:
        fold_of[free] = random.permutation(count)
        return fold_of
    bundle_of = np.full(len(free), -1)
    bundle_of[free] = random.permutation(count) % max(2 * folds, _MOST_TRIALS // folds)
    rows = np.flatnonzero(free[table.groups])
    labels, bundles = table.labels[rows], bundle_of[table.groups[rows]]
    if np.bincount(labels).max() < folds:
        labels = np.zeros_like(labels)  # no class is large enough to stratify by
    with warnings.catch_warnings():
        # Folds without a class, and many classes for few images, are expected here.
        warnings.simplefilter("ignore", UserWarning)
        positions = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rows, labels, bundles)
        for number, (_, held_out) in enumerate(positions):
            fold_of[table.groups[rows[held_out]]] = number
    return fold_of


def _choose_folds(
    table: _Table, fold_of: NDArray[np.int64], targets: Sequence[float], penalty: float
) -> NDArray[np.int64]:
    """Return the split of each group, shape (G,): 0 for train, then 1, 2, ... in the order of the targets.

    Args:
        table: Table of the groups.
        fold_of: Fold of each group, -1 for groups that stay in train.
        targets: Number of images wanted for each split.
        penalty: Cost of a class that train loses, in images.
    """
    sizes = np.bincount(fold_of[table.groups] + 1, minlength=2)[1:]
    counts = np.zeros((len(sizes) + 1, len(table.groups_per_class)), dtype=np.int64)
    np.add.at(counts, (fold_of[table.pair_groups] + 1, table.pair_labels), table.pair_counts)
    staying, counts = counts.sum(axis=0), counts[1:]
    split_of_fold = np.zeros(len(sizes) + 1, dtype=np.int64)
    available = set(range(len(sizes)))
    for_train = 0 if (fold_of == -1).any() else 1
    for number, target in enumerate(targets, start=1):
        size = 0
        while len(available) > len(targets) - number + for_train:
            lost = {fold: np.count_nonzero((staying > 0) & (staying == counts[fold])) for fold in available}
            cost = {fold: abs(size + sizes[fold] - target) + lost[fold] * penalty for fold in available}
            best = min(available, key=lambda fold: (cost[fold], fold))
            if size and cost[best] >= abs(size - target):
                break
            available.remove(best)
            split_of_fold[best] = number
            size += sizes[best]
            staying = staying - counts[best]
    # Index -1 is the last entry: train.
    return split_of_fold[fold_of]


def _return_surplus(table: _Table, split_of: NDArray[np.int64], targets: Sequence[float], seed: int) -> None:
    """Move the groups beyond a split's target back into train; a fold may be larger than a small share."""
    order = np.random.default_rng(seed).permutation(len(split_of))
    for number, target in enumerate(targets, start=1):
        chosen = order[split_of[order] == number]
        sizes = table.group_sizes[chosen]
        before = np.cumsum(sizes) - sizes
        split_of[chosen[(before > 0) & (before + sizes / 2 > target)]] = 0


def _return_lost_classes(table: _Table, split_of: NDArray[np.int64]) -> None:
    """Move the smallest group of each class that train lacks into train."""
    in_train = table.classes_in(split_of == 0)
    for label in np.flatnonzero((table.groups_per_class > 0) & ~in_train).tolist():
        if not in_train[label]:
            split_of[table.groups_of(label)[0]] = 0
            in_train = table.classes_in(split_of == 0)


def _spread_classes(table: _Table, fold_of: NDArray[np.int64], folds: int) -> None:
    """Move a group of each class that is in only one fold into the smallest other fold."""
    lowest = np.full(len(table.groups_per_class), folds)
    highest = np.full(len(table.groups_per_class), -1)
    np.minimum.at(lowest, table.pair_labels, fold_of[table.pair_groups])
    np.maximum.at(highest, table.pair_labels, fold_of[table.pair_groups])
    for label in np.flatnonzero(lowest == highest).tolist():
        sizes = np.bincount(fold_of[table.groups], minlength=folds)
        sizes[lowest[label]] = sizes.max() + 1
        group = table.groups_of(label)[0]
        if np.count_nonzero(fold_of == fold_of[group]) > 1:
            fold_of[group] = np.argmin(sizes)
