"""Augmentation of whole batches on their device, drawn for each image alone.

Every draw is a function of seed, epoch and image, so it is the same however batches are cut, on any rank, and
after a resume.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AugmentName = Literal["none", "light", "standard", "strong"]

DRAWS = 16
_MASK = (1 << 64) - 1


def uniform_draws(*, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Return uniform numbers that depend on nothing but seed, epoch and image (SplitMix64; Steele et al. 2014).

    Args:
        seed: The run's seed.
        epoch: The epoch.
        indices: Images, int64, shape (N,).

    Returns:
        float32 in [0, 1), shape (N, DRAWS), on the device of the indices.
    """
    key = _mix_int(_mix_int(seed) + epoch)
    columns = torch.arange(DRAWS, device=indices.device)
    counter = indices[:, None] * DRAWS + columns + _signed(key)
    return (_mix(counter * _signed(0x9E3779B97F4A7C15)) >> 40 & 0xFFFFFF).float() / 2**24


def augment_batch(images: Tensor, draws: Tensor, *, name: AugmentName, crop_px: int, mirror: bool) -> Tensor:
    """Return augmented images.

    Args:
        images: Resized for evaluation, uint8, shape (N, C, H, W), no side below `crop_px`.
        draws: Uniform numbers, shape (N, DRAWS).
        name: How much; "none" gives the centre crop of evaluation.
        crop_px: Side of what comes out.
        mirror: Whether images may be mirrored.

    Returns:
        uint8 or float32 in [0, 255], shape (N, C, crop_px, crop_px).
    """
    match name:
        case "none":
            top, left = (round((side - crop_px) / 2) for side in images.shape[-2:])
            return images[..., top : top + crop_px, left : left + crop_px]
        case "light":
            return shift_and_mirror(images, draws, crop_px=crop_px, mirror=mirror)
        case "standard":
            cropped = random_resized_crop(images, draws, crop_px=crop_px, min_area=0.35, degrees=0, mirror=mirror)
            return color_jitter(cropped, draws, strength=0.2)
        case "strong":
            cropped = random_resized_crop(images, draws, crop_px=crop_px, min_area=0.15, degrees=15, mirror=mirror)
            return random_erase(color_jitter(cropped, draws, strength=0.4), draws, probability=0.25)


def shift_and_mirror(images: Tensor, draws: Tensor, *, crop_px: int, mirror: bool) -> Tensor:
    """Return a random crop at full scale, mirrored half of the time.

    Images that leave less than an eighth of the crop to move in are padded by reflection first.
    """
    images = _with_margin(images, crop_px)
    height, width = images.shape[-2:]
    top = (draws[:, 0] * (height - crop_px + 1)).long()
    left = (draws[:, 1] * (width - crop_px + 1)).long()
    span = torch.arange(crop_px, device=images.device)
    columns = span.expand(len(images), -1)
    if mirror:
        columns = torch.where((draws[:, 2] < 0.5)[:, None], columns.flip(1), columns)
    rows = (top[:, None] + span)[:, None, :, None]
    columns = (left[:, None] + columns)[:, None, None, :]
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[batch, channels, rows, columns]


def random_resized_crop(
    images: Tensor, draws: Tensor, *, crop_px: int, min_area: float, degrees: float, mirror: bool
) -> Tensor:
    """Return random boxes resized to a square, turned and mirrored (Szegedy et al. 2015, section 6).

    Args:
        images: uint8, shape (N, C, H, W).
        draws: Uniform numbers, shape (N, DRAWS).
        crop_px: Side of what comes out.
        min_area: Smallest share of the image's area, in (0, 1].
        degrees: Largest rotation to either side.
        mirror: Whether images may be mirrored.

    Returns:
        float32 in [0, 255], shape (N, C, crop_px, crop_px).
    """
    area = min_area + (1 - min_area) * draws[:, 3]
    ratio = torch.exp((2 * draws[:, 4] - 1) * math.log(4 / 3))
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    shift_x = (2 * draws[:, 0] - 1) * (1 - width)
    shift_y = (2 * draws[:, 1] - 1) * (1 - height)
    angle = (2 * draws[:, 5] - 1) * math.radians(degrees)
    flip = torch.where(draws[:, 2] < 0.5, -1.0, 1.0) if mirror else torch.ones_like(angle)
    rows = [
        torch.stack([width * angle.cos() * flip, -height * angle.sin(), shift_x], dim=1),
        torch.stack([width * angle.sin() * flip, height * angle.cos(), shift_y], dim=1),
    ]
    size = [len(images), images.shape[1], crop_px, crop_px]
    grid = F.affine_grid(torch.stack(rows, dim=1), size, align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def color_jitter(images: Tensor, draws: Tensor, *, strength: float) -> Tensor:
    """Return images with brightness, contrast and saturation each scaled by 1 - strength to 1 + strength."""
    brightness, contrast, saturation = (
        (1 + (2 * draws[:, column] - 1) * strength).view(-1, 1, 1, 1) for column in (6, 7, 8)
    )
    images = images.float() * brightness
    images = torch.lerp(_grey(images).mean(dim=(2, 3), keepdim=True).expand_as(images), images, contrast)
    return torch.lerp(_grey(images).expand_as(images), images, saturation).clamp_(0, 255)


def random_erase(images: Tensor, draws: Tensor, *, probability: float) -> Tensor:
    """Return images with a grey box of 2 to 20 % of the area in some of them (Zhong et al. 2020)."""
    size = images.shape[-1]
    side = (size * (0.02 + 0.18 * draws[:, 10]).sqrt()).view(-1, 1, 1)
    top = (draws[:, 11].view(-1, 1, 1) * (size - side)).floor()
    left = (draws[:, 12].view(-1, 1, 1) * (size - side)).floor()
    span = torch.arange(size, device=images.device)
    inside_rows = (span[None, :, None] >= top) & (span[None, :, None] < top + side)
    inside_columns = (span[None, None, :] >= left) & (span[None, None, :] < left + side)
    chosen = (draws[:, 9] < probability).view(-1, 1, 1)
    return images.masked_fill((inside_rows & inside_columns & chosen)[:, None], 127.5)


def _with_margin(images: Tensor, crop_px: int) -> Tensor:
    margin = crop_px // 8
    vertical, horizontal = (max(0, -(-(crop_px + margin - side) // 2)) for side in images.shape[-2:])
    if not (vertical or horizontal):
        return images
    padding = [horizontal, horizontal, vertical, vertical]
    return F.pad(images.float(), padding, mode="reflect").to(images.dtype)


def _grey(images: Tensor) -> Tensor:
    """Return luma (ITU-R BT.601), or the mean where there are not three channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device, dtype=images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shift(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shift(values, 31)


def _shift(values: Tensor, bits: int) -> Tensor:
    return values >> bits & ((1 << (64 - bits)) - 1)


def _mix_int(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
