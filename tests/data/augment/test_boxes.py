"""Boxes: random erasing by plain arithmetic, and the boxes of CutMix."""

import math

import pytest
import torch

from tests.data.augment.noise import draws_of, smooth_noise
from unfreeze.data.augment.boxes import FILL, box_mask, cut_boxes, random_erase
from unfreeze.data.augment.draws import Draw


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (21, 50), (1, 1)])
def test_erasing_fills_the_box_that_was_drawn(dtype: torch.dtype, height: int, width: int) -> None:
    images, draws = smooth_noise(60, height, width).to(dtype), draws_of(60)
    before = images.clone()
    results = random_erase(images, draws, probability=0.5)
    assert results.dtype == dtype
    assert torch.equal(images, before)
    for image, result, draw in zip(images, results, draws, strict=True):
        expected = image.clone()
        if draw[Draw.ERASE] < 0.5:
            area = (0.02 + 0.18 * draw[Draw.ERASE_AREA].item()) * height * width
            ratio = 3 ** (2 * draw[Draw.ERASE_RATIO].item() - 1)
            box_width = min(max(round(math.sqrt(area * ratio)), 1), width)
            box_height = min(max(round(math.sqrt(area / ratio)), 1), height)
            left = int(draw[Draw.ERASE_LEFT] * (width - box_width + 1))
            top = int(draw[Draw.ERASE_TOP] * (height - box_height + 1))
            expected[:, top : top + box_height, left : left + box_width] = FILL
        assert torch.equal(result, expected)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_as_many_images_are_erased_as_the_probability_says(probability: float) -> None:
    black = torch.zeros(800, 1, 40, 40, dtype=torch.uint8)
    share = (random_erase(black, draws_of(800), probability=probability) == FILL).float().mean(dim=(1, 2, 3))
    assert (share > 0).float().mean().item() == pytest.approx(probability, abs=0.04)
    assert share[share > 0].min() > 0.015 if probability else not share.any()
    assert share.max() < 0.22


def test_boxes_of_cutmix_lie_inside_and_are_as_large_as_the_share_unless_an_edge_cuts_them() -> None:
    draws, shares = draws_of(500), torch.linspace(0, 1, 500)
    boxes = cut_boxes(draws, shares, height=60, width=100)
    left, top, right, bottom = boxes.unbind(1)
    assert boxes.dtype == torch.int64
    assert ((left >= 0) & (left <= right) & (right <= 100) & (top >= 0) & (top <= bottom) & (bottom <= 60)).all()
    whole = (left > 0) & (top > 0) & (right < 100) & (bottom < 60)
    area = (right - left) * (bottom - top) / 6000
    assert whole.sum() > 50
    assert (area - shares)[whole].abs().max() < 0.02
    assert (area <= shares + 0.02).all()


def test_a_mask_is_true_inside_its_box() -> None:
    boxes = torch.tensor([[1, 2, 3, 5], [0, 0, 0, 0]])
    mask = box_mask(boxes, torch.zeros(2, 3, 6, 4))
    assert mask.shape == (2, 1, 6, 4)
    assert mask[0, 0].nonzero().tolist() == [[row, column] for row in (2, 3, 4) for column in (1, 2)]
    assert not mask[1].any()
