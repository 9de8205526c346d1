"""The order of an epoch is a function of seed and epoch, and can be balanced."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.data.order import Indices, epoch_order

labels_of_a_set = st.lists(st.sampled_from([0, 1, 2, 2, 2, 2, 5]), min_size=1, max_size=60).map(np.array)
seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 10**6)


def indices_for(labels: Indices) -> Indices:
    return np.arange(len(labels)) * 3 + 7


def classes_in(order: Indices, labels: Indices) -> Counter[int]:
    return Counter(labels[(order - 7) // 3].tolist())


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


@given(labels=labels_of_a_set, seed=seeds, epoch=epochs)
def test_plain_it_is_the_permutation_that_seed_and_epoch_draw(labels: Indices, seed: int, epoch: int) -> None:
    indices = indices_for(labels)
    expected = np.random.default_rng([seed, epoch]).permutation(indices)
    assert np.array_equal(epoch_order(indices, labels, seed=seed, epoch=epoch), expected)


@given(labels=labels_of_a_set, seed=seeds, epoch=epochs)
def test_balanced_each_class_stands_equally_often_in_an_epoch_as_long(labels: Indices, seed: int, epoch: int) -> None:
    order = epoch_order(indices_for(labels), labels, seed=seed, epoch=epoch, balance=True)
    assert len(order) == len(labels)
    shown = classes_in(order, labels)
    assert set(shown) <= set(labels.tolist())
    assert spread([shown[label] for label in set(labels.tolist())]) <= 1


@given(labels=labels_of_a_set, seed=seeds, epoch=epochs)
def test_balanced_each_image_stands_as_often_as_another_of_its_class(labels: Indices, seed: int, epoch: int) -> None:
    indices = indices_for(labels)
    shown = Counter(epoch_order(indices, labels, seed=seed, epoch=epoch, balance=True).tolist())
    for label in set(labels.tolist()):
        assert spread([shown[index] for index in indices[labels == label].tolist()]) <= 1


@given(labels=labels_of_a_set, seed=seeds, count=st.integers(1, 12))
def test_over_epochs_images_take_turns_and_classes_stay_even(labels: Indices, seed: int, count: int) -> None:
    indices = indices_for(labels)
    orders = [epoch_order(indices, labels, seed=seed, epoch=epoch, balance=True) for epoch in range(count)]
    shown = Counter(np.concatenate(orders).tolist())
    for label in set(labels.tolist()):
        assert spread([shown[index] for index in indices[labels == label].tolist()]) <= 1
    per_class = classes_in(np.concatenate(orders), labels)
    assert spread([per_class[label] for label in set(labels.tolist())]) <= 1


@given(labels=labels_of_a_set, seed=seeds, epoch=epochs)
def test_the_same_seed_and_epoch_give_the_same_whatever_else_is_drawn(labels: Indices, seed: int, epoch: int) -> None:
    first = epoch_order(indices_for(labels), labels, seed=seed, epoch=epoch, balance=True)
    np.random.default_rng(0).random(3)
    assert np.array_equal(first, epoch_order(indices_for(labels), labels, seed=seed, epoch=epoch, balance=True))


def test_balanced_orders_differ_by_seed_and_by_epoch_and_are_mixed() -> None:
    labels = np.repeat([0, 1], [90, 10])
    orders = [
        epoch_order(indices_for(labels), labels, seed=seed, epoch=epoch, balance=True)
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        first_half = classes_in(order[:50], labels)
        assert 15 <= first_half[0] <= 35


def test_all_images_of_a_frequent_class_are_seen_before_one_is_seen_again() -> None:
    labels = np.repeat([0, 1], [95, 5])
    seen = [
        index
        for epoch in range(2)
        for index in epoch_order(np.arange(100), labels, seed=3, epoch=epoch, balance=True)
        if index < 95
    ]
    assert len(seen) == 100
    assert set(seen) == set(range(95))


def test_nothing_to_order_will_do() -> None:
    nothing = np.array([], dtype=np.int64)
    for balance in (False, True):
        assert len(epoch_order(nothing, nothing, seed=0, epoch=0, balance=balance)) == 0
