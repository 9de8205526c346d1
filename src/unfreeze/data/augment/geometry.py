"""Crops, mirroring and affine maps of batches with random numbers per image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unfreeze.data.augment.draws import Draw, between, on_device_of


def centre_crop(images: Tensor, *, crop_px: int) -> Tensor:
    """Return the centre crop of evaluation, shape (N, C, crop_px, crop_px)."""
    top, left = (round((side - crop_px) / 2) for side in images.shape[-2:])
    return images[..., top : top + crop_px, left : left + crop_px]


def shift_and_mirror(images: Tensor, draws: Tensor, *, crop_px: int, mirror: bool) -> Tensor:
    """Return a random crop at full scale, mirrored with probability 0.5.

    Images with a margin of less than an eighth of the crop are padded to it by reflection.

    Args:
        images: Images, uint8, shape (N, C, H, W), no side below `crop_px`.
        draws: Uniform random numbers, shape (N, DRAWS).
        crop_px: Side of the crop.
        mirror: Whether images may be mirrored.

    Returns:
        Crops, uint8, shape (N, C, crop_px, crop_px).
    """
    count, channels, height, width = images.shape
    span = torch.arange(crop_px)
    rows = _reflected(_starts(draws[:, Draw.TOP], height, crop_px) + span, height)
    columns = _reflected(_starts(draws[:, Draw.LEFT], width, crop_px) + span, width)
    if mirror:
        columns = torch.where(_mirrored(draws)[:, None], columns.flip(1), columns)
    # Rows first, then columns: gathering by both at once takes ten times as long.
    first_rows = torch.arange(count, device=images.device)[:, None] * height
    chosen = images.permute(0, 2, 3, 1).reshape(-1, width * channels)
    chosen = chosen.index_select(0, (first_rows + on_device_of(rows, images)).flatten()).view(
        count, crop_px, width * channels
    )
    values = (columns[..., None] * channels + torch.arange(channels)).flatten(1)
    chosen = chosen.gather(2, on_device_of(values, images)[:, None].expand(-1, crop_px, -1))
    return chosen.view(count, crop_px, crop_px, channels).permute(0, 3, 1, 2)


def random_resized_crop(
    images: Tensor, draws: Tensor, *, crop_px: int, min_area: float, degrees: float, mirror: bool
) -> Tensor:
    """Return random boxes resized to a square, rotated and mirrored (Szegedy et al. 2015, section 6).

    There is no antialiasing, as the images are already resized to little more than the crop. Pixels of a rotated box
    outside the image are filled by reflection.

    Args:
        images: Images, uint8, shape (N, C, H, W).
        draws: Uniform random numbers, shape (N, DRAWS).
        crop_px: Side of the square.
        min_area: Smallest share of the image's area, in (0, 1].
        degrees: Largest rotation in either direction.
        mirror: Whether images may be mirrored.

    Returns:
        Crops, float32 in [0, 255], shape (N, C, crop_px, crop_px).
    """
    boxes = _random_boxes(draws, images.shape[-2], images.shape[-1], min_area=min_area)
    angles = between(-1, 1, draws[:, Draw.ANGLE]) * math.radians(degrees)
    mirrored = _mirrored(draws) if mirror else torch.zeros_like(angles, dtype=torch.bool)
    matrices = box_matrices(boxes, angles, mirrored, crop_px=crop_px)
    return warp(images.float(), matrices, size_px=(crop_px, crop_px), padding="reflection")


def box_matrices(boxes: Tensor, angles: Tensor, mirrored: Tensor, *, crop_px: int) -> Tensor:
    """Return the affine maps from boxes to squares.

    Args:
        boxes: Left, top, width and height in pixels, float, shape (N, 4).
        angles: Rotations in radians around the boxes' centres, shape (N,).
        mirrored: Mask of mirrored images, bool, shape (N,).
        crop_px: Side of the squares.

    Returns:
        Matrices for `warp`, shape (N, 2, 3).
    """
    left, top, width, height = boxes.unbind(1)
    across = torch.where(mirrored, -width, width) / crop_px
    down = height / crop_px
    columns = torch.stack([across * angles.cos(), -down * angles.sin()], dim=1)
    rows = torch.stack([across * angles.sin(), down * angles.cos()], dim=1)
    x = left + width / 2 - columns.sum(dim=1) * crop_px / 2
    y = top + height / 2 - rows.sum(dim=1) * crop_px / 2
    return torch.stack([torch.cat([columns, x[:, None]], dim=1), torch.cat([rows, y[:, None]], dim=1)], dim=1)


def warp(images: Tensor, matrices: Tensor, *, size_px: tuple[int, int], padding: str) -> Tensor:
    """Return affinely mapped images, bilinear, without antialiasing.

    Args:
        images: Images, float32, shape (N, C, H, W).
        matrices: Maps from output to input in pixel coordinates of Pillow's `Image.transform`, in which the first
            pixel spans 0 to 1. On the host, shape (N, 2, 3).
        size_px: Height and width of the mapped images.
        padding: Padding mode, "reflection" or "zeros".

    Returns:
        Mapped images, float32, shape (N, C, *size_px).
    """
    height, width = images.shape[-2:]
    scale = 2 / torch.tensor([width, height])
    a, b, c = on_device_of(matrices * scale[:, None], images).unbind(2)
    x = torch.arange(size_px[1], device=images.device) + 0.5
    y = torch.arange(size_px[0], device=images.device) + 0.5
    across = a[..., None] * x + (c[..., None] - 1)
    down = b[..., None] * y
    grid = (across[:, :, None] + down[..., None]).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _random_boxes(draws: Tensor, height: int, width: int, *, min_area: float) -> Tensor:
    area = between(min_area, 1, draws[:, Draw.AREA]) * height * width
    ratio = torch.exp(between(-1, 1, draws[:, Draw.RATIO]) * math.log(4 / 3))
    box_width = (area * ratio).sqrt().clamp(max=width)
    box_height = (area / ratio).sqrt().clamp(max=height)
    left = draws[:, Draw.LEFT] * (width - box_width)
    top = draws[:, Draw.TOP] * (height - box_height)
    return torch.stack([left, top, box_width, box_height], dim=1)


def _starts(draws: Tensor, side: int, crop_px: int) -> Tensor:
    """Return the start of each crop along one side, shape (N, 1); negative in the padding of narrow images."""
    padding = max(0, -(-(crop_px + crop_px // 8 - side) // 2))
    return (draws[:, None] * (side + 2 * padding - crop_px + 1)).long() - padding


def _reflected(positions: Tensor, side: int) -> Tensor:
    return (side - 1) - ((side - 1) - positions.abs()).abs()


def _mirrored(draws: Tensor) -> Tensor:
    return draws[:, Draw.MIRROR] < 0.5
