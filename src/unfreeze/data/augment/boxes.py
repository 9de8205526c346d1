"""Boxes in images for random erasing and CutMix."""

import math

import torch
from torch import Tensor

from unfreeze.data.augment.draws import Draw, between, on_device_of

FILL = 128


def random_erase(images: Tensor, draws: Tensor, *, probability: float) -> Tensor:
    """Return images with a grey box of 2 to 20 % of the area in some of them (Zhong et al. 2020).

    Args:
        images: Images, uint8 or float32 in [0, 255], shape (N, C, H, W).
        draws: Uniform random numbers, shape (N, DRAWS).
        probability: Probability of a box in an image.

    Returns:
        Images of the same type and shape.
    """
    height, width = images.shape[-2:]
    boxes = _erased_boxes(draws, height, width) * (draws[:, Draw.ERASE] < probability)[:, None]
    return images.masked_fill(box_mask(boxes, images), FILL)


def cut_boxes(draws: Tensor, shares: Tensor, *, height: int, width: int) -> Tensor:
    """Return boxes of a share of the area around a random centre, clipped to the image (Yun et al. 2019, section 3.1).

    Args:
        draws: Uniform random numbers, shape (N, DRAWS).
        shares: Shares of the area, in [0, 1], shape (N,).
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Returns:
        Left, top, right and bottom in pixels, int64, shape (N, 4).
    """
    half = shares.sqrt() / 2
    x, y = (draws[:, Draw.MIX_LEFT] * width).floor(), (draws[:, Draw.MIX_TOP] * height).floor()
    sides = [x - half * width, y - half * height, x + half * width, y + half * height]
    limits = torch.tensor([width, height, width, height])
    return torch.stack(sides, dim=1).round().long().clamp(min=torch.zeros_like(limits), max=limits)


def box_mask(boxes: Tensor, images: Tensor) -> Tensor:
    """Return a mask of the pixels inside boxes.

    Args:
        boxes: Left, top, right and bottom in pixels, int64, on the host, shape (N, 4).
        images: Images, shape (N, C, H, W).

    Returns:
        Mask, bool, on the images' device, shape (N, 1, H, W).
    """
    height, width = images.shape[-2:]
    left, top, right, bottom = on_device_of(boxes, images)[:, None].unbind(2)
    x, y = torch.arange(width, device=images.device), torch.arange(height, device=images.device)
    columns, rows = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return (rows[:, :, None] & columns[:, None])[:, None]


def _erased_boxes(draws: Tensor, height: int, width: int) -> Tensor:
    area = between(0.02, 0.2, draws[:, Draw.ERASE_AREA]) * height * width
    ratio = torch.exp(between(-1, 1, draws[:, Draw.ERASE_RATIO]) * math.log(3))
    box_width = (area * ratio).sqrt().round().clamp(1, width)
    box_height = (area / ratio).sqrt().round().clamp(1, height)
    left = (draws[:, Draw.ERASE_LEFT] * (width - box_width + 1)).floor()
    top = (draws[:, Draw.ERASE_TOP] * (height - box_height + 1)).floor()
    return torch.stack([left, top, left + box_width, top + box_height], dim=1).long()
