"""Random numbers: uniform, independent, and a function of seed, epoch and image."""

import pytest
import torch

from tests.data.augment.noise import draws_of
from unfreeze.data.augment.draws import DRAWS, Draw, between, uniform_draws


def test_they_lie_between_0_and_1_and_have_their_shape() -> None:
    draws = draws_of(5000)
    assert draws.shape == (5000, DRAWS)
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1


@pytest.mark.parametrize("epoch", [0, 1, 99])
def test_each_column_is_uniform(epoch: int) -> None:
    draws = draws_of(20_000, seed=epoch + 5, epoch=epoch).sort(dim=0).values
    expected = (torch.arange(20_000) + 0.5)[:, None] / 20_000
    # Kolmogorov-Smirnov: beyond 1.95 / sqrt(n) once in a thousand columns.
    assert (draws - expected).abs().max() < 1.95 / 20_000**0.5


def test_neighbours_are_independent() -> None:
    draws = draws_of(20_000) - 0.5
    between_columns = torch.corrcoef(draws.T) - torch.eye(DRAWS)
    assert between_columns.abs().max() < 0.04
    for other in (draws.roll(1, dims=0), draws_of(20_000, epoch=1) - 0.5, draws_of(20_000, seed=1) - 0.5):
        assert ((draws * other).mean(dim=0) * 12).abs().max() < 0.04


def test_seed_epoch_and_image_decide_and_nothing_else() -> None:
    draws = draws_of(100, seed=7, epoch=3)
    torch.manual_seed(5)
    shuffled = torch.randperm(100)
    assert torch.equal(uniform_draws(seed=7, epoch=3, indices=shuffled), draws[shuffled])
    assert not torch.equal(draws_of(100, seed=8, epoch=3), draws)
    assert not torch.equal(draws_of(100, seed=7, epoch=4), draws)
    assert len(draws.unique()) == draws.numel() or len(draws.unique()) > draws.numel() - 3


def test_the_next_epoch_of_a_seed_is_not_an_epoch_of_the_next_seed() -> None:
    first = {tuple(draws_of(1, seed=0, epoch=epoch)[0].tolist()) for epoch in range(50)}
    second = {tuple(draws_of(1, seed=1, epoch=epoch)[0].tolist()) for epoch in range(50)}
    assert len(first) == len(second) == 50
    assert not first & second


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_large_seeds_epochs_and_images_will_do(seed: int) -> None:
    draws = uniform_draws(seed=seed, epoch=10**6, indices=torch.tensor([0, 2**40]))
    assert draws.isfinite().all()
    assert 0 <= draws.min() <= draws.max() < 1


def test_there_is_a_column_for_each_name() -> None:
    assert [int(draw) for draw in Draw] == list(range(len(Draw)))
    assert len(Draw) <= DRAWS


def test_between_scales_the_unit_interval() -> None:
    assert between(-3, 1, torch.tensor([0.0, 0.25, 0.5])).tolist() == [-3, -2, -1]
