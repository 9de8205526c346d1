"""Colour augmentation compared with Pillow's ImageEnhance, up to its rounding after each step."""

import pytest
import torch
from PIL import ImageEnhance

from tests.data.augment.noise import draws_of, from_pil, smooth_noise, to_pil
from unfreeze.data.augment.color import adjust_color, color_jitter, grey
from unfreeze.data.augment.draws import Draw

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_each_step_is_pillows(which: int, channels: int, factor: float) -> None:
    images = smooth_noise(6, channels=channels)
    factors = torch.ones(6, 3)
    factors[:, which] = factor
    for image, result in zip(images, adjust_color(images, factors), strict=True):
        expected = from_pil(ENHANCERS[which](to_pil(image)).enhance(factor))
        assert (result - expected).abs().max() <= 1.6


def test_jitter_is_brightness_then_contrast_then_saturation() -> None:
    images, draws = smooth_noise(20, low=60, high=190), draws_of(20)
    for image, result, draw in zip(images, color_jitter(images, draws, strength=0.2), draws, strict=True):
        picture = to_pil(image)
        for enhancer, column in zip(ENHANCERS, (Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION), strict=True):
            picture = enhancer(picture).enhance(0.8 + 0.4 * draw[column].item())
        difference = (result - from_pil(picture)).abs()
        assert difference.max() <= 4
        assert difference.mean() <= 2


def test_brightness_is_scaled_as_far_as_the_strength_says() -> None:
    images = torch.full((500, 3, 4, 4), 100, dtype=torch.uint8)
    levels = color_jitter(images, draws_of(500), strength=0.2).mean(dim=(1, 2, 3))
    assert 79.9 < levels.min() < 82
    assert 118 < levels.max() < 120.1
    assert levels.mean().item() == pytest.approx(100, abs=2)


def test_no_strength_changes_nothing() -> None:
    images = smooth_noise(5)
    torch.testing.assert_close(color_jitter(images, draws_of(5), strength=0), images.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_where_there_are_not_three_channels_grey_is_their_mean(channels: int) -> None:
    images = smooth_noise(4, channels=channels)
    torch.testing.assert_close(grey(images), images.float().mean(dim=1, keepdim=True))
    drained = adjust_color(images, torch.tensor([[1.0, 1.0, 0.0]]).expand(4, -1))
    torch.testing.assert_close(drained, grey(images).expand(images.shape))
