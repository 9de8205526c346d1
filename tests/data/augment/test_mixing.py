"""Mixup and CutMix by plain arithmetic, and targets that match the pixels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from torch import Tensor

from tests.data.augment.noise import draws_of, smooth_noise
from unfreeze.data.augment.draws import Draw
from unfreeze.data.augment.mixing import beta_draws, mix_batch, mix_targets

ALPHAS = (0.0, 1e-6, 0.2, 1.0, 100.0)


def mixed(
    images: Tensor, *, mixup: float = 0.0, cutmix: float = 0.0, probability: float = 1.0
) -> tuple[Tensor, Tensor]:
    return mix_batch(images, draws_of(len(images)), mixup=mixup, cutmix=cutmix, probability=probability)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_shares_have_the_distribution_of_beta(alpha: float) -> None:
    uniform = draws_of(5000)[:, Draw.MIX_SHARE]
    shares = beta_draws(uniform, alpha)
    assert 0 <= shares.min() <= shares.max() <= 1
    off_in_probability = abs(beta.cdf(shares.numpy(), alpha, alpha) - uniform.numpy())
    off_in_share = abs(beta.ppf(uniform.numpy(), alpha, alpha) - shares.numpy())
    # Between two of 4,096 quantiles the distribution is a straight line; near one, float32 has no finer steps.
    assert ((off_in_probability < 1 / 4096) | (off_in_share < 1e-6)).all()
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)


def test_mixup_blends_each_image_with_the_one_before_it() -> None:
    images = smooth_noise(9)
    results, shares = mixed(images, mixup=0.4)
    expected_shares = beta_draws(draws_of(9)[:, Draw.MIX_SHARE], 0.4)
    torch.testing.assert_close(shares, expected_shares)
    for position, (result, share) in enumerate(zip(results, shares, strict=True)):
        expected = share * images[position] + (1 - share) * images[position - 1]
        torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(40, 48), (31, 7), (1, 1)])
def test_cutmix_pastes_a_box_and_counts_its_pixels(height: int, width: int) -> None:
    count = 40
    images = torch.arange(count).view(-1, 1, 1, 1).expand(count, 2, height, width).to(torch.uint8)
    results, shares = mixed(images, cutmix=1.0)
    own = (results == images).float()
    foreign = (results == images.roll(1, 0)).float()
    assert torch.equal(own + foreign, torch.ones_like(own))
    torch.testing.assert_close(shares, own.mean(dim=(1, 2, 3)))
    for mask in foreign[:, 0].bool():
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert (rows.int().diff().clamp(min=0).sum() + rows[0]) <= 1


def test_each_image_gets_one_of_the_two_or_none() -> None:
    count = 4000
    images = torch.arange(count).remainder(2).mul(200).view(-1, 1, 1, 1).expand(count, 1, 16, 16).to(torch.uint8)
    results, shares = mixed(images, mixup=1.0, cutmix=1.0, probability=0.6)
    blended = ((results > 0) & (results < 200)).all(dim=3).all(dim=2)[:, 0]
    pasted = ~blended & (shares < 1)
    untouched = (results == images).all(dim=3).all(dim=2)[:, 0]
    assert blended.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert pasted.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert untouched.float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert (shares[untouched] == 1).all()


@given(
    count=st.integers(0, 9),
    channels=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    mixup=st.sampled_from(ALPHAS),
    cutmix=st.sampled_from(ALPHAS),
    probability=st.floats(0, 1),
)
@settings(deadline=None)
def test_targets_sum_to_one_and_pixels_stay_in_range(
    count: int, channels: int, height: int, width: int, mixup: float, cutmix: float, probability: float
) -> None:
    images = smooth_noise(count, height, width, channels) if count else torch.zeros(0, channels, height, width)
    results, shares = mixed(images, mixup=mixup, cutmix=cutmix, probability=probability)
    assert results.shape == images.shape
    assert results.dtype == torch.float32
    assert ((results >= 0) & (results <= 255)).all()
    targets = mix_targets(F.one_hot(torch.arange(count) % 3, 3).float(), shares)
    assert targets.shape == (count, 3)
    assert ((targets >= 0) & (targets <= 1)).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))


def test_targets_are_the_shares_of_both_labels() -> None:
    shown = F.one_hot(torch.tensor([2, 0, 0]), 4).float()
    targets = mix_targets(shown, torch.tensor([0.75, 0.5, 0.25]))
    assert targets.tolist() == [[0.25, 0, 0.75, 0], [0.5, 0, 0.5, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0)])
def test_an_image_alone_is_mixed_with_itself(mixup: float, cutmix: float) -> None:
    image = smooth_noise(1)
    result, shares = mixed(image, mixup=mixup, cutmix=cutmix)
    torch.testing.assert_close(result, image.float())
    assert mix_targets(torch.tensor([[0.0, 1, 0]]), shares).tolist() == [[0, 1, 0]]


def test_what_is_mixed_is_the_images_own_draw_wherever_it_stands() -> None:
    images, draws = smooth_noise(8), draws_of(8)
    options = {"mixup": 0.5, "cutmix": 1.0, "probability": 0.7}
    _, shares = mix_batch(images, draws, **options)
    order = torch.tensor([5, 1, 7])
    _, others = mix_batch(images[order], draws[order], **options)
    assert torch.equal(others, shares[order])
    assert len(shares.unique()) > 3
