"""The resize of a graph, beside torchvision's own on uint8, to the last bit."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from unfreeze.inference.export.resizing import FixedPointResize, fixed_point, resize_weights

SIZES = [
    ((8, 8), (32, 32)),
    ((32, 32), (105, 105)),
    ((12, 10), (38, 32)),
    ((31, 64), (96, 198)),
    ((32, 32), (232, 232)),
    ((33, 33), (34, 34)),
    ((1, 1), (5, 5)),
    ((3, 90), (7, 210)),
]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("given", "wanted"), SIZES, ids=str)
def test_pixels_are_those_of_torchvision(interpolation: str, given: tuple[int, int], wanted: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, *given), dtype=torch.uint8)
    images[0] = (images[0] > 127) * 255  # where cubic weights overshoot
    expected = F.resize(images, list(wanted), interpolation=F.InterpolationMode(interpolation), antialias=True)
    for crop_px in (min(wanted), max(1, min(wanted) - 3), max(wanted) + 3):
        resize = FixedPointResize(given, wanted, crop_px=crop_px, interpolation=interpolation)
        assert torch.equal(resize(images), F.center_crop(expected, [crop_px, crop_px]).float())


def test_weights_sum_to_one_and_keep_all_bits_that_fit() -> None:
    weights = resize_weights(5, 13, "bicubic")
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(13, dtype=torch.float64))
    whole, bits = fixed_point(weights)
    assert whole.abs().max() < 1 << 15
    assert whole.max() * 2 >= 1 << 15
    assert (whole / (1 << bits) - weights).abs().max() <= 0.5 / (1 << bits)


def test_a_resize_that_float32_has_too_few_bits_for_is_refused() -> None:
    with pytest.raises(ValueError, match="more bits than float32 has"):
        FixedPointResize((1000, 1000), (4, 4), crop_px=4, interpolation="bilinear")
