"""Splits by groups: whole groups, every class in train, and shares as near as the groups allow."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unfreeze.data.splits.splits import Splits, build_splits
from unfreeze.errors import UnfreezeError

Labels = NDArray[np.int64]
SEEDS = st.integers(0, 2**32 - 1)
# A list of groups, each a list of the labels of its images.
GROUPS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=4, max_size=40)


def table_of(groups: list[list[int]]) -> tuple[Labels, Labels]:
    """Return labels and groups in a mixed order, groups by numbers with gaps."""
    _, labels = np.unique([label for group in groups for label in group], return_inverse=True)
    numbers = np.repeat(np.arange(len(groups)) * 7 + 3, [len(group) for group in groups])
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], numbers[order]


def split(labels: Labels, groups: Labels, named: NDArray[np.str_] | None = None, **options: float) -> Splits:
    named = np.full(len(labels), "train") if named is None else named
    return build_splits(named, labels, groups=groups, **{"val_fraction": 0.2, "test_fraction": 0.2, **options})


def cut_or_assume(labels: Labels, groups: Labels, **options: float) -> Splits:
    """Return splits, or pass over an example that has too few groups."""
    try:
        return split(labels, groups, **options)
    except UnfreezeError:
        assume(False)
        raise


def check(splits: Splits, labels: Labels, groups: Labels) -> None:
    parts = (splits.train, splits.val, splits.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    members = [set(groups[part].tolist()) for part in parts]
    assert members[0].isdisjoint(members[1])
    assert members[0].isdisjoint(members[2])
    assert members[1].isdisjoint(members[2])
    assert all((np.diff(part) > 0).all() for part in parts)
    assert set(labels[splits.train].tolist()) == set(labels.tolist())


@given(groups=GROUPS, val=st.floats(0.01, 0.4), test=st.floats(0.01, 0.4), seed=SEEDS)
def test_groups_stay_together_and_every_class_can_be_learned(
    groups: list[list[int]], val: float, test: float, seed: int
) -> None:
    labels, numbers = table_of(groups)
    splits = cut_or_assume(labels, numbers, val_fraction=val, test_fraction=test, seed=seed)
    check(splits, labels, numbers)
    assert min(len(splits.val), len(splits.test)) >= 1
    again = split(labels, numbers, val_fraction=val, test_fraction=test, seed=seed)
    assert np.array_equal(splits.train, again.train)
    assert np.array_equal(splits.val, again.val)


@given(groups=GROUPS, seed=SEEDS, shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_fractions_keep_whole_groups_and_are_nested(
    groups: list[list[int]], seed: int, shares: tuple[float, float]
) -> None:
    labels, numbers = table_of(groups)
    whole = cut_or_assume(labels, numbers, seed=seed)
    small, large = (split(labels, numbers, seed=seed, fraction=share) for share in sorted(shares))
    assert set(small.train.tolist()) <= set(large.train.tolist()) <= set(whole.train.tolist())
    assert np.array_equal(small.val, whole.val)
    assert set(labels[small.train].tolist()) == set(labels.tolist())
    left_out = np.setdiff1d(whole.train, small.train)
    assert set(numbers[left_out].tolist()).isdisjoint(numbers[small.train].tolist())


@given(groups=GROUPS, folds=st.integers(2, 5), seed=SEEDS)
def test_folds_are_disjoint_and_cover(groups: list[list[int]], folds: int, seed: int) -> None:
    labels, numbers = table_of(groups)
    parts = [cut_or_assume(labels, numbers, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    for part in parts:
        check(part, labels, numbers)
        assert np.array_equal(part.test, parts[0].test)
    validated = np.concatenate([part.val for part in parts])
    assert sorted([*validated.tolist(), *parts[0].test.tolist()]) == list(range(len(labels)))


def test_shares_are_near_where_groups_are_many() -> None:
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 5, 20_000), random.integers(0, 3_000, 20_000)
    splits = split(labels, groups, val_fraction=0.15, test_fraction=0.1)
    check(splits, labels, groups)
    for part, share in ((splits.val, 0.15), (splits.test, 0.1)):
        assert np.bincount(labels[part]) / np.bincount(labels) == pytest.approx(share, abs=0.015)
    assert not np.array_equal(splits.val, split(labels, groups, val_fraction=0.15, test_fraction=0.1, seed=1).val)


def test_a_share_smaller_than_a_fold_is_met() -> None:
    labels, groups = np.arange(20_000) % 3, np.arange(20_000) // 2
    splits = split(labels, groups, val_fraction=0.002, test_fraction=0.3)
    assert len(splits.val) == pytest.approx(40, abs=2)
    assert len(splits.test) == pytest.approx(6000, abs=200)


def test_two_hundred_thousand_images_in_many_groups() -> None:
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 10, 200_000), random.integers(0, 60_000, 200_000)
    splits = split(labels, groups, val_fraction=0.1, test_fraction=0.1)
    check(splits, labels, groups)
    assert len(splits.val) == pytest.approx(20_000, rel=0.02)


def test_a_group_that_alone_has_a_class_trains() -> None:
    labels, groups = table_of([[0, 1]] * 8 + [[2, 2, 2]])
    for seed in range(10):
        assert {0, 1, 2} == set(labels[split(labels, groups, seed=seed).train].tolist())


def test_given_splits_stay_and_only_the_others_are_cut() -> None:
    labels, groups = np.arange(60) % 2, np.arange(60) // 6
    named = np.array(["train"] * 48 + ["test"] * 12)
    splits = split(labels, groups, named)
    assert splits.test.tolist() == list(range(48, 60))
    assert splits.from_train == ("val",)
    assert len(splits.val) == 12


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [[0, 1], [0, 1]],
            "data: 2 groups (0 of them with all images of a class, which stay in train) are too few for test and val;",
        ),
        ([[0], [1], [2], [3]], "4 groups (4 of them with all images of a class"),
    ],
)
def test_too_few_groups_are_refused(groups: list[list[int]], message: str) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        split(*table_of(groups))
    assert message in str(refusal.value)
    assert "test and val; want more groups, a split column, or data.test_fraction=0" in str(refusal.value)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1]] * 3, "data.folds: got 4, but there are 3 groups; want no more, such as data.folds=3"),
        ([[0, 1]] * 5 + [[2]], "data.folds: 1 of 3 classes are in only one group"),
    ],
)
def test_folds_that_the_groups_do_not_allow_are_refused(groups: list[list[int]], message: str) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        split(*table_of(groups), folds=4, fold=0, test_fraction=0)
    assert message in str(refusal.value)
