"""Splits: disjoint, complete, stratified, seeded, nested, for data of any size."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unfreeze.data.splits.splits import Splits, build_splits, describe_splits
from unfreeze.errors import UnfreezeError

SIZES = st.lists(st.integers(2, 40), min_size=2, max_size=6)
SHARES = st.floats(0.01, 0.3)
SEEDS = st.integers(0, 2**32 - 1)


def labels_of(sizes: list[int]) -> NDArray[np.int64]:
    """Return labels in a mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


def split(sizes: list[int], given_splits: NDArray[np.str_] | None = None, **options: float) -> Splits:
    labels = labels_of(sizes)
    named = np.full(len(labels), "train") if given_splits is None else given_splits
    return build_splits(named, labels, **{"val_fraction": 0.1, "test_fraction": 0.1, **options})


def all_indices(splits: Splits) -> list[int]:
    return sorted([*splits.train.tolist(), *splits.val.tolist(), *splits.test.tolist()])


@given(sizes=SIZES, val=SHARES, test=SHARES, seed=SEEDS)
def test_splits_are_disjoint_and_complete_and_every_class_can_be_learned(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    splits = split(sizes, val_fraction=val, test_fraction=test, seed=seed)
    assert all_indices(splits) == list(range(sum(sizes)))
    assert set(labels_of(sizes)[splits.train].tolist()) == set(range(len(sizes)))
    assert len(splits.val) >= 1
    assert len(splits.test) >= 1
    assert splits.from_train == ("test", "val")
    for part in (splits.train, splits.val, splits.test):
        assert (np.diff(part) > 0).all()


@given(sizes=st.lists(st.integers(30, 60), min_size=2, max_size=5), seed=SEEDS)
def test_shares_hold_for_each_class(sizes: list[int], seed: int) -> None:
    splits = split(sizes, val_fraction=0.2, test_fraction=0.1, seed=seed)
    labels = labels_of(sizes)
    assert len(splits.val) == round(0.2 * sum(sizes))
    assert len(splits.test) == round(0.1 * sum(sizes))
    for part, share in ((splits.val, 0.2), (splits.test, 0.1)):
        counts = np.bincount(labels[part], minlength=len(sizes))
        assert (np.abs(counts - share * np.array(sizes)) <= 1).all()


@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=12), val=SHARES, test=SHARES, seed=SEEDS)
def test_shares_are_within_one_image_of_each_class_whatever_its_size(
    sizes: list[int], val: float, test: float, seed: int
) -> None:
    try:
        splits = split(sizes, val_fraction=val, test_fraction=test, seed=seed)
    except UnfreezeError:
        assert sum(sizes) < len(sizes) + 2 or max(sizes) < 4
        return
    labels, exact = labels_of(sizes), np.array(sizes)
    assert all_indices(splits) == list(range(sum(sizes)))
    assert (np.bincount(labels[splits.train], minlength=len(sizes)) >= 1).all()
    for part, share in ((splits.val, val), (splits.test, test)):
        assert (np.abs(np.bincount(labels[part], minlength=len(sizes)) - share * exact) <= 1).all()
        if min(sizes) >= 10:
            assert len(part) == pytest.approx(max(1, share * sum(sizes)), abs=1)


@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=12),
    val=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
    seed=SEEDS,
)
def test_large_shares_leave_each_class_an_image(sizes: list[int], val: float, test: float, seed: int) -> None:
    try:
        splits = split(sizes, val_fraction=val, test_fraction=test, seed=seed)
    except UnfreezeError:
        assert test * sum(sizes) + val * sum(sizes) + 2 > sum(sizes) - len(sizes)
        return
    assert all_indices(splits) == list(range(sum(sizes)))
    assert (np.bincount(labels_of(sizes)[splits.train], minlength=len(sizes)) >= 1).all()


@given(sizes=SIZES, seed=SEEDS)
def test_the_seed_decides(sizes: list[int], seed: int) -> None:
    first, second = split(sizes, seed=seed), split(sizes, seed=seed)
    for name in ("train", "val", "test"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_cuts_otherwise() -> None:
    first, second = split([50, 50], seed=0), split([50, 50], seed=1)
    assert not np.array_equal(first.test, second.test)
    assert not np.array_equal(first.val, second.val)


@given(sizes=SIZES, seed=SEEDS, fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_a_smaller_fraction_lies_within_a_larger_one(
    sizes: list[int], seed: int, fractions: tuple[float, float]
) -> None:
    small, large = (split(sizes, seed=seed, fraction=fraction) for fraction in sorted(fractions))
    assert set(small.train.tolist()) <= set(large.train.tolist())
    assert set(labels_of(sizes)[small.train].tolist()) == set(range(len(sizes)))
    assert np.array_equal(small.val, large.val)
    assert np.array_equal(small.test, large.test)


def test_a_fraction_is_taken_of_each_class() -> None:
    splits = split([100, 200], val_fraction=0.1, test_fraction=0, fraction=0.25)
    assert np.bincount(labels_of([100, 200])[splits.train]).tolist() == pytest.approx([22.5, 45], abs=0.6)


def test_given_splits_stay_as_they_are() -> None:
    named = np.array(["train", "test", "val", "train", "test", "train", "val", "train"])
    splits = split([4, 4], named, val_fraction=0.5, test_fraction=0.5)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([0, 3, 5, 7], [2, 6], [1, 4])
    assert splits.from_train == ()


@pytest.mark.parametrize(("missing", "kept"), [("val", "test"), ("test", "val")])
def test_only_missing_splits_are_held_out_from_train(missing: str, kept: str) -> None:
    named = np.array(["train"] * 40 + [kept] * 10)
    splits = split([25, 25], named, val_fraction=0.25, test_fraction=0.25)
    assert getattr(splits, kept).tolist() == list(range(40, 50))
    assert len(getattr(splits, missing)) == 10
    assert set(getattr(splits, missing).tolist()) < set(range(40))
    assert splits.from_train == (missing,)


def test_no_test_where_none_is_wanted() -> None:
    splits = split([20, 20], test_fraction=0)
    assert splits.test.size == 0
    assert splits.from_train == ("val",)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_of_two_images_leave_one_of_each_to_train(seed: int) -> None:
    splits = split([2, 2], seed=seed)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (2, 1, 1)
    assert sorted(labels_of([2, 2])[splits.train].tolist()) == [0, 1]


def test_a_class_of_one_image_stays_in_train() -> None:
    splits = split([1, 30, 30], val_fraction=0.3, test_fraction=0.3)
    alone = int(np.flatnonzero(labels_of([1, 30, 30]) == 0)[0])
    assert alone in splits.train


def test_two_hundred_classes() -> None:
    splits = split([3] * 200, val_fraction=0.1, test_fraction=0.1)
    assert (len(splits.val), len(splits.test)) == (60, 60)
    assert len(set(labels_of([3] * 200)[splits.train].tolist())) == 200


@pytest.mark.parametrize("sizes", [[1, 1], [1, 2], [1, 1, 1]])
def test_too_few_images_are_refused(sizes: list[int]) -> None:
    with pytest.raises(UnfreezeError, match=r"no image left for a (val|test) split: \d images in \d classes"):
        split(sizes)


@given(sizes=st.lists(st.integers(2, 30), min_size=2, max_size=5), folds=st.integers(2, 6), seed=SEEDS)
def test_folds_are_disjoint_and_cover_all_but_the_test_images(sizes: list[int], folds: int, seed: int) -> None:
    if max(sizes) <= folds + 2:
        sizes[0] += folds + 2
    parts = [split(sizes, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    labels = labels_of(sizes)
    test = parts[0].test
    assert sorted(np.concatenate([part.val for part in parts]).tolist() + test.tolist()) == list(range(sum(sizes)))
    pool = np.bincount(np.delete(labels, test), minlength=len(sizes))
    for part in parts:
        assert all_indices(part) == list(range(sum(sizes)))
        assert np.array_equal(part.test, test)
        assert set(labels[part.train].tolist()) == set(range(len(sizes)))
        assert (np.abs(np.bincount(labels[part.val], minlength=len(sizes)) - pool / folds) < 1).all()
        assert part.from_train == ("test", "val")


def test_a_given_val_is_pooled_with_train_for_folds() -> None:
    named = np.array(["train"] * 20 + ["val"] * 10 + ["test"] * 10)
    parts = [split([20, 20], named, folds=3, fold=fold) for fold in range(3)]
    assert sorted(np.concatenate([part.val for part in parts]).tolist()) == list(range(30))
    assert all(part.test.tolist() == list(range(30, 40)) and part.from_train == ("val",) for part in parts)


@pytest.mark.parametrize(
    ("sizes", "folds", "message"),
    [
        ([1, 20], 3, "1 of 2 classes have only one image, which can't be in both train and val"),
        ([4, 5], 6, "got 6, but no class has more than 5 images; want no more folds than that, such as data.folds=5"),
    ],
)
def test_folds_that_the_classes_do_not_allow_are_refused(sizes: list[int], folds: int, message: str) -> None:
    with pytest.raises(UnfreezeError, match=r"^data.folds: ") as refusal:
        split(sizes, folds=folds, fold=0, test_fraction=0)
    assert message in str(refusal.value)


def test_two_hundred_thousand_images() -> None:
    labels = np.random.default_rng(0).integers(0, 100, 200_000)
    splits = build_splits(np.full(200_000, "train"), labels, val_fraction=0.1, test_fraction=0.1, fraction=0.5)
    assert (len(splits.val), len(splits.test)) == (20_000, 20_000)
    assert len(splits.train) == pytest.approx(80_000, abs=50)


def digests_of(count: int) -> NDArray[np.void]:
    return np.frombuffer(np.random.default_rng(1).bytes(16 * count), dtype="V16")


def test_a_description_counts_and_tells_what_was_cut() -> None:
    named = np.array(["train"] * 30 + ["test"] * 10)
    splits = split([20, 20], named, val_fraction=0.2, seed=3)
    described = describe_splits(splits, labels_of([20, 20]), classes=("a", "b"), digests=digests_of(40), seed=3)
    assert (described["schema"], described["seed"]) == (1, 3)
    assert {name: part["count"] for name, part in described["splits"].items()} == {"train": 24, "val": 6, "test": 10}
    assert [part["cut_from_train"] for part in described["splits"].values()] == [False, True, False]
    assert all(sum(part["classes"].values()) == part["count"] for part in described["splits"].values())
    json.dumps(described)


@given(order=st.permutations(range(12)))
def test_a_hash_tells_images_and_labels_but_not_their_order(order: list[int]) -> None:
    labels, digests = labels_of([6, 6]), digests_of(12)
    everything = np.arange(12)
    splits = Splits(train=everything, val=everything[:0], test=everything[:5], from_train=())
    moved = np.argsort(order)
    other = Splits(train=everything, val=everything[:0], test=np.sort(moved[:5]), from_train=())
    first = describe_splits(splits, labels, classes=("a", "b"), digests=digests, seed=0)
    second = describe_splits(other, labels[order], classes=("a", "b"), digests=digests[order], seed=0)
    assert first == second
    relabelled = describe_splits(splits, 1 - labels, classes=("a", "b"), digests=digests, seed=0)
    fewer = describe_splits(other, labels, classes=("a", "b"), digests=digests, seed=0)
    assert relabelled["splits"]["test"]["hash"] != first["splits"]["test"]["hash"]
    if set(moved[:5].tolist()) != set(range(5)):
        assert fewer["splits"]["test"]["hash"] != first["splits"]["test"]["hash"]
