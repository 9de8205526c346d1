"""Splits that tear no group apart, such as the photos of one patient or the frames of one film."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError

# The library tries each fold for each group: groups that would make for more trials are dealt out in bundles.
_MOST_TRIALS = 4000
_MOST_FOLDS = 100
_ENOUGH_FOLDS = 20


@dataclass(frozen=True, eq=False)
class _Table:
    """How many images each group has of each class, where it has some, sorted by class and then by group.

    Args:
        members: The images, shape (N,).
        labels: Of the members, shape (N,).
        groups: Of the members, numbered from 0, shape (N,).
        pair_labels: Class of each pair of a class and a group that has it, shape (P,).
        pair_groups: Group of each pair, shape (P,).
        pair_counts: Images of each pair, shape (P,).
    """

    members: Indices
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    pair_labels: NDArray[np.int64]
    pair_groups: NDArray[np.int64]
    pair_counts: NDArray[np.int64]

    @cached_property
    def group_sizes(self) -> NDArray[np.int64]:
        """Images of each group, shape (G,)."""
        return np.bincount(self.groups)

    @cached_property
    def groups_per_class(self) -> NDArray[np.int64]:
        """Number of groups that have a class, shape (C,)."""
        return np.bincount(self.pair_labels)

    def only_carriers(self) -> NDArray[np.bool_]:
        """Return which groups are the only one of some class, shape (G,)."""
        found = np.zeros(self.groups.max(initial=-1) + 1, dtype=np.bool_)
        found[self.pair_groups[self.groups_per_class[self.pair_labels] == 1]] = True
        return found

    def groups_of(self, label: int) -> NDArray[np.int64]:
        """Return the groups that have a class, the smallest first."""
        start, end = np.searchsorted(self.pair_labels, (label, label + 1))
        groups = self.pair_groups[start:end]
        return groups[np.argsort(self.group_sizes[groups], kind="stable")]

    def classes_in(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which classes some groups have, shape (C,)."""
        found = np.zeros(len(self.groups_per_class), dtype=np.bool_)
        found[self.pair_labels[chosen[self.pair_groups]]] = True
        return found


def cut_groups(
    train: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, shares: dict[str, float], seed: int
) -> dict[str, Indices]:
    """Return train and what was cut from it, each sorted, with all of a group in one of them.

    Every class stays in train, and a group that alone has a class does.

    Args:
        train: What to cut from.
        labels: Of all images, from 0.
        groups: Of all images.
        shares: Share of train for each split to cut, in (0, 1); met as near as the groups allow.
        seed: Decides the draws.

    Raises:
        UnfreezeError: If there are too few groups.
    """
    if not shares:
        return {"train": train}
    table = _tabulate(train, labels, groups)
    free = ~table.only_carriers()
    targets = [share * len(train) for share in shares.values()]
    count = int(np.count_nonzero(free))
    if min(len(free) - 1, count) >= len(shares):
        fold_of = _deal(table, free, _fold_count(shares, count), seed)
        # A class that train would lose weighs as much as a group of the common size, or more than anything.
        for loss in (len(train) / len(free), len(train)):
            split_of = _choose_folds(table, fold_of, targets, loss)
            _give_back_surplus(table, split_of, targets, seed)
            _give_back_lost_classes(table, split_of)
            if len(np.unique(split_of)) == 1 + len(shares):
                return {name: train[split_of[table.groups] == i] for i, name in enumerate(["train", *shares])}
    raise UnfreezeError(
        f"data: {len(free)} groups ({len(free) - count} of them with a class of their own, which train needs) "
        f"are too few to cut {' and '.join(shares)} from; want more groups, a split column, or "
        f"{'data.test_fraction=0' if 'test' in shares and len(shares) > 1 else 'no groups: data.columns.group=false'}"
    )


def fold_groups(
    pool: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, folds: int, fold: int, seed: int
) -> dict[str, Indices]:
    """Return one of several parts of a pool as val, the others as train, with all of a group in one of them.

    Raises:
        UnfreezeError: If there are fewer groups than folds, or a class that train would lack.
    """
    table = _tabulate(pool, labels, groups)
    count = len(table.group_sizes)
    if count < folds:
        hint = f"data.folds={count}" if count >= 2 else "data.folds=null data.fold=null"
        raise UnfreezeError(f"data.folds: got {folds}, but there are {count} groups; want no more, such as {hint}")
    alone = np.count_nonzero(table.groups_per_class == 1)
    if alone:
        raise UnfreezeError(
            f"data.folds: {alone} of {np.count_nonzero(table.groups_per_class)} classes are in one group only, which "
            "can't both train and validate; type data.folds=null data.fold=null"
        )
    fold_of = _deal(table, np.ones(count, dtype=np.bool_), folds, seed)
    _spread_classes(table, fold_of, folds)
    if (table.classes_in(fold_of != fold) < table.classes_in(fold_of == fold)).any():
        raise UnfreezeError(f"data.fold: {fold} has all groups of some class; type another data.seed, or fewer folds")
    taken = fold_of[table.groups] == fold
    return {"train": pool[~taken], "val": pool[taken]}


def thin_groups(
    train: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64], *, fraction: float, seed: int
) -> Indices:
    """Keep whole groups, about a share of each class and one image at least.

    What a smaller share keeps, a larger one does too.
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
    of_class = np.bincount(main_class, weights=sizes)[main_class[order]]
    kept = np.zeros(len(sizes), dtype=np.bool_)
    kept[order[before + sizes[order] / 2 <= fraction * of_class]] = True
    by_rank = np.lexsort((rank[table.pair_groups], table.pair_labels))
    _, first = np.unique(table.pair_labels[by_rank], return_index=True)
    kept[table.pair_groups[by_rank][first]] = True
    return train[kept[table.groups]]


def _tabulate(members: Indices, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> _Table:
    known, numbers = np.unique(groups[members], return_inverse=True)
    pairs, counts = np.unique(labels[members] * len(known) + numbers, return_counts=True)
    pair_labels, pair_groups = np.divmod(pairs, max(1, len(known)))
    return _Table(members, labels[members], numbers, pair_labels, pair_groups, counts)


def _fold_count(shares: dict[str, float], groups: int) -> int:
    """Return into how many folds to deal groups so that whole folds make up the shares."""
    smallest = min(shares.values())
    if smallest < 1 / _ENOUGH_FOLDS:
        return min(groups, _MOST_FOLDS, round(1 / smallest))
    errors = [
        sum(abs(round(share * count) / count - share) for share in shares.values())
        for count in range(len(shares) + 1, _ENOUGH_FOLDS + 1)
    ]
    enough = next(i for i, error in enumerate(errors) if error <= min(errors) + 0.005)
    return min(groups, len(shares) + 1 + enough)


def _deal(table: _Table, free: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each group, shape (G,); -1 for those that are not free."""
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
        # Folds that lack a class, or classes that are many for so few images, are no fault of a person's.
        warnings.simplefilter("ignore", UserWarning)
        cuts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rows, labels, bundles)
        for number, (_, taken) in enumerate(cuts):
            fold_of[table.groups[rows[taken]]] = number
    return fold_of


def _choose_folds(
    table: _Table, fold_of: NDArray[np.int64], targets: Sequence[float], loss: float
) -> NDArray[np.int64]:
    """Return the split of each group, shape (G,): 0 for train, then 1 and so on as the targets stand.

    Args:
        table: The groups.
        fold_of: Fold of each group, -1 for those that stay in train.
        targets: Images wanted for each split.
        loss: What a class that train loses weighs, in images.
    """
    sizes = np.bincount(fold_of[table.groups] + 1, minlength=2)[1:]
    counts = np.zeros((len(sizes) + 1, len(table.groups_per_class)), dtype=np.int64)
    np.add.at(counts, (fold_of[table.pair_groups] + 1, table.pair_labels), table.pair_counts)
    staying, counts = counts.sum(axis=0), counts[1:]
    split_of_fold = np.zeros(len(sizes) + 1, dtype=np.int64)
    left = set(range(len(sizes)))
    for_train = 0 if (fold_of == -1).any() else 1
    for number, target in enumerate(targets, start=1):
        size = 0
        while len(left) > len(targets) - number + for_train:
            lost = {fold: np.count_nonzero((staying > 0) & (staying == counts[fold])) for fold in left}
            cost = {fold: abs(size + sizes[fold] - target) + lost[fold] * loss for fold in left}
            best = min(left, key=lambda fold: (cost[fold], fold))
            if size and cost[best] >= abs(size - target):
                break
            left.remove(best)
            split_of_fold[best] = number
            size += sizes[best]
            staying = staying - counts[best]
    # The last entry, which -1 finds, is train.
    return split_of_fold[fold_of]


def _give_back_surplus(table: _Table, split_of: NDArray[np.int64], targets: Sequence[float], seed: int) -> None:
    """Move groups beyond what was wanted of a split into train; a fold may be more than a small share."""
    order = np.random.default_rng(seed).permutation(len(split_of))
    for number, target in enumerate(targets, start=1):
        chosen = order[split_of[order] == number]
        sizes = table.group_sizes[chosen]
        before = np.cumsum(sizes) - sizes
        split_of[chosen[(before > 0) & (before + sizes / 2 > target)]] = 0


def _give_back_lost_classes(table: _Table, split_of: NDArray[np.int64]) -> None:
    """Move the smallest group of each class that train lacks into train."""
    there = table.classes_in(split_of == 0)
    for label in np.flatnonzero((table.groups_per_class > 0) & ~there).tolist():
        if not there[label]:
            split_of[table.groups_of(label)[0]] = 0
            there = table.classes_in(split_of == 0)


def _spread_classes(table: _Table, fold_of: NDArray[np.int64], folds: int) -> None:
    """Move a group of each class that one fold alone has into the smallest of the others."""
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
