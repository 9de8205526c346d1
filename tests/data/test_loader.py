"""Loaders: order by seed and epoch, exact resume, ranks that agree, every image once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.data.loader import Batch, EvalLoader, TrainLoader
from unfreeze.data.order import epoch_order
from unfreeze.data.store.pixels import ResidentPixels

COUNT = 60
IMAGES = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
PIXELS = ResidentPixels(IMAGES.permute(0, 2, 3, 1).contiguous())
LABELS = torch.arange(COUNT) % 7


def train_loader(count: int = 20, **options: int) -> TrainLoader:
    return TrainLoader(PIXELS, LABELS, np.arange(count) * 2 % 59, **{"batch_size": 6, "seed": 3, **options})


def eval_loader(count: int, **options: int) -> EvalLoader:
    return EvalLoader(PIXELS, LABELS, np.arange(count), **{"batch_size": 6, **options})


def epoch_of(loader: TrainLoader | EvalLoader) -> list[list[int]]:
    """Return the images of each batch of one pass."""
    return [batch.indices.tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_a_batch_holds_the_images_and_labels_of_its_indices() -> None:
    for batch in [*train_loader(), *eval_loader(20)]:
        assert isinstance(batch, Batch)
        assert torch.equal(batch.images, IMAGES[batch.indices])
        assert torch.equal(batch.labels, LABELS[batch.indices])
        assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (torch.uint8, torch.int64, torch.int64)


class TestOrder:
    def test_seed_and_epoch_decide(self) -> None:
        one, two = train_loader(), train_loader()
        epochs = [epoch_of(one) for _ in range(3)]
        assert epochs == [epoch_of(two) for _ in range(3)]
        assert len({tuple(flat(epoch)) for epoch in epochs}) == 3
        assert epoch_of(train_loader(seed=4)) != epochs[0]

    @pytest.mark.parametrize("balance", [False, True])
    def test_the_images_of_some_epochs_are_those_that_they_have(self, balance: bool) -> None:
        loader = train_loader(balance=balance)
        seen = [set(flat(epoch_of(loader))) for _ in range(3)]
        assert loader.images_of(range(1, 3)).tolist() == sorted(seen[1] | seen[2])
        assert loader.images_of(range(0)).tolist() == []

    def test_the_state_of_other_generators_decides_nothing(self) -> None:
        first = epoch_of(train_loader())
        torch.manual_seed(99)
        np.random.seed(99)
        assert epoch_of(train_loader()) == first

    def test_an_epoch_has_every_image_once(self) -> None:
        loader = train_loader(20)
        for _ in range(2):
            assert sorted(flat(epoch_of(loader))) == sorted(np.arange(20) * 2 % 59)

    def test_images_are_mixed(self) -> None:
        order = flat(epoch_of(train_loader(20)))
        assert order != sorted(order)


class TestBalance:
    def test_an_epoch_is_the_balanced_order_of_its_number(self) -> None:
        indices, labels = np.arange(COUNT), (torch.arange(COUNT) % 10 == 0).long()
        loader = TrainLoader(PIXELS, labels, indices, batch_size=7, seed=3, balance=True)
        for epoch in range(3):
            order = flat(epoch_of(loader))
            assert order == epoch_order(indices, labels.numpy(), seed=3, epoch=epoch, balance=True).tolist()
            assert labels[order].sum() == COUNT / 2

    @pytest.mark.parametrize("steps", [1, 4])
    def test_in_the_middle_of_an_epoch_the_same_batches_remain(self, steps: int) -> None:
        labels = (torch.arange(COUNT) % 10 == 0).long()
        running, resumed = (
            TrainLoader(PIXELS, labels, np.arange(COUNT), batch_size=7, seed=3, balance=True) for _ in range(2)
        )
        epoch_of(running)
        batches = iter(running)
        for _ in range(steps):
            next(batches)
        resumed.load_state_dict(running.state_dict())
        assert epoch_of(resumed) == [batch.indices.tolist() for batch in batches]

    def test_ranks_share_out_the_balanced_steps(self) -> None:
        labels = (torch.arange(COUNT) % 10 == 0).long()
        options = {"seed": 3, "balance": True}
        alone = epoch_of(TrainLoader(PIXELS, labels, np.arange(COUNT), batch_size=8, **options))
        ranks = [
            epoch_of(TrainLoader(PIXELS, labels, np.arange(COUNT), batch_size=4, rank=rank, world_size=2, **options))
            for rank in range(2)
        ]
        for whole, first, second in zip(alone, *ranks, strict=True):
            assert sorted(first + second) == sorted(whole)


class TestLastBatch:
    @pytest.mark.parametrize(
        ("count", "batch_size", "sizes"),
        [
            (12, 6, [6, 6]),
            (14, 6, [6, 6, 2]),
            (13, 6, [6, 5, 2]),
            (7, 6, [5, 2]),
            (5, 2, [2, 3]),
            (7, 3, [3, 2, 2]),
            (4, 6, [4]),
            (3, 1, [1, 1, 1]),
            (1, 6, [1]),
        ],
    )
    def test_a_last_image_alone_gets_company(self, count: int, batch_size: int, sizes: list[int]) -> None:
        loader = train_loader(count, batch_size=batch_size)
        batches = epoch_of(loader)
        assert [len(batch) for batch in batches] == sizes
        assert len(loader) == len(sizes)
        assert len(set(flat(batches))) == count

    @given(count=st.integers(2, COUNT - 1), batch_size=st.integers(2, 70), world_size=st.integers(1, 4))
    def test_no_rank_ever_gets_a_single_image(self, count: int, batch_size: int, world_size: int) -> None:
        indices = np.arange(count)
        for rank in range(world_size):
            options = {"batch_size": batch_size, "seed": 0, "rank": rank, "world_size": world_size}
            sizes = [len(batch) for batch in epoch_of(TrainLoader(PIXELS, LABELS, indices, **options))]
            if count > world_size:
                assert min(sizes) >= 2
            assert max(sizes) <= batch_size + 1


class TestResume:
    @pytest.mark.parametrize("epochs_before", [0, 2])
    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_in_the_middle_of_an_epoch_the_same_batches_remain(self, epochs_before: int, steps: int) -> None:
        running = train_loader(20)
        for _ in range(epochs_before):
            epoch_of(running)
        batches = iter(running)
        for _ in range(steps):
            next(batches)
        state = running.state_dict()
        rest = [batch.indices.tolist() for batch in batches]
        resumed = train_loader(20)
        resumed.load_state_dict(state)
        assert epoch_of(resumed) == rest
        assert len(rest) == 4 - steps
        assert [epoch_of(resumed) for _ in range(2)] == [epoch_of(running) for _ in range(2)]

    def test_at_the_end_of_an_epoch_the_next_one_follows(self) -> None:
        running, resumed = train_loader(), train_loader()
        batches = iter(running)
        for _ in range(len(running)):
            next(batches)
        resumed.load_state_dict(running.state_dict())
        assert resumed.state_dict() == {"epoch": 1, "position": 0}
        assert next(batches, None) is None
        assert epoch_of(resumed) == epoch_of(running)

    def test_an_epoch_that_was_broken_off_is_not_taken_up_without_being_asked(self) -> None:
        broken_off, whole = train_loader(), train_loader()
        next(iter(broken_off))
        epoch_of(whole)
        assert epoch_of(broken_off) == epoch_of(whole)

    def test_the_state_is_plain(self) -> None:
        loader = train_loader()
        next(iter(loader))
        assert loader.state_dict() == {"epoch": 0, "position": 1}
        assert {type(value) for value in loader.state_dict().values()} == {int}


class TestRanks:
    @pytest.mark.parametrize("world_size", [2, 3])
    @pytest.mark.parametrize("epoch", [0, 1])
    def test_ranks_share_out_the_steps_of_one_process_with_the_larger_batch(self, world_size: int, epoch: int) -> None:
        alone = train_loader(48, batch_size=4 * world_size)
        ranks = [train_loader(48, batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)]
        for _ in range(epoch):
            for loader in (alone, *ranks):
                epoch_of(loader)
        steps = zip(*(epoch_of(rank) for rank in ranks), strict=True)
        for whole, parts in zip(epoch_of(alone), steps, strict=True):
            assert [len(part) for part in parts] == [4] * world_size
            assert sorted(flat(list(parts))) == sorted(whole)

    @given(count=st.integers(1, COUNT - 1), batch_size=st.integers(1, 20), world_size=st.integers(1, 4))
    def test_ranks_stay_in_step_and_see_every_image(self, count: int, batch_size: int, world_size: int) -> None:
        options = {"batch_size": batch_size, "seed": 0, "world_size": world_size}
        epochs = [
            epoch_of(TrainLoader(PIXELS, LABELS, np.arange(count), rank=rank, **options)) for rank in range(world_size)
        ]
        for parts in zip(*epochs, strict=True):
            assert len({len(part) for part in parts}) == 1
        seen = flat([flat(epoch) for epoch in epochs])
        assert set(seen) == set(range(count))
        assert len(seen) - count < world_size


class TestEval:
    @given(count=st.integers(1, COUNT), batch_size=st.integers(1, 70), world_size=st.integers(1, 4))
    def test_every_image_once_over_all_ranks_in_as_many_batches(
        self, count: int, batch_size: int, world_size: int
    ) -> None:
        options = {"batch_size": batch_size, "world_size": world_size}
        loaders = [eval_loader(count, rank=rank, **options) for rank in range(world_size)]
        passes = [epoch_of(loader) for loader in loaders]
        assert sorted(flat([flat(batches) for batches in passes])) == list(range(count))
        assert len({len(batches) for batches in passes}) == 1
        assert [len(loader) for loader in loaders] == [len(batches) for batches in passes]
        assert max(len(batch) for batches in passes for batch in batches) <= batch_size

    def test_the_order_is_that_of_the_images_each_time(self) -> None:
        loader = eval_loader(20)
        assert flat(epoch_of(loader)) == flat(epoch_of(loader)) == list(range(20))

    def test_batches_are_of_about_one_size(self) -> None:
        sizes = [len(batch) for batch in epoch_of(eval_loader(20, batch_size=6))]
        assert all(0 <= first - second <= 1 for first, second in pairwise(sizes))

    def test_nothing_to_evaluate_gives_no_batch(self) -> None:
        assert len(eval_loader(0)) == 0
        assert epoch_of(eval_loader(0)) == []


def test_an_image_that_comes_again_in_an_epoch_is_drawn_anew() -> None:
    labels = torch.tensor([0] * 4 + [1] * 56)
    loader = TrainLoader(PIXELS, labels, np.arange(COUNT), batch_size=6, seed=0, balance=True)
    keys = torch.cat([batch.draw_keys for batch in loader])
    indices = torch.cat([batch.indices for batch in loader])
    assert len(keys.unique()) == COUNT > len(indices.unique())
    assert torch.equal(torch.cat([batch.draw_keys for batch in train_loader()]).sort()[0], torch.arange(20) * 2 % 59)
