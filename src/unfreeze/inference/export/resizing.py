"""Resizing of uint8 images by two constant matrices, bit by bit equal to torch's."""

import math

import torch
from torch import Tensor, nn

_TAPS = {"bilinear": 2, "bicubic": 4}
_CUBIC = -0.5
_MAX_BITS = 22


class FixedPointResize(nn.Module):
    """A resize and center crop of uint8 images, equal to torch's on a CPU: rows first, both passes rounded to uint8.

    torch scales each weight to a 16-bit integer, sums integers, and shifts. Sums of integers below 2^24 are exact in
    float32 in any order, so that a matrix product gives the same bits in every runtime, without a custom operator.
    Weights and precision are those of aten/src/ATen/native/cpu/UpSampleKernel.cpp.

    Args:
        size_px: Height and width of the input.
        resized_px: Height and width after resizing.
        crop_px: Side of the center crop; smaller images are padded with zeros.
        interpolation: "bilinear" or "bicubic".
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, size_px: tuple[int, int], resized_px: tuple[int, int], *, crop_px: int, interpolation: str
    ) -> None:
        super().__init__()
        for name, source, target in zip(("rows", "columns"), size_px, resized_px, strict=True):
            weights, bits = fixed_point(resize_weights(source, target, interpolation))
            if float(weights.abs().sum(dim=1).max()) * 255 >= 1 << 24:
                raise ValueError(f"a resize from {source} to {target} px needs more bits than float32 has")
            # Scaling back by a power of two is exact: the sum can then be rounded directly.
            scaled = weights / (1 << bits)
            self.register_buffer(name, _crop(scaled, crop_px).float())

    def forward(self, images: Tensor) -> Tensor:
        """Return whole numbers in [0, 255] as float32, shape (N, C, crop_px, crop_px), from uint8 (N, C, H, W)."""
        across = _to_uint8(images.float() @ self.columns.T)
        return _to_uint8(self.rows @ across)


def resize_weights(source: int, target: int, interpolation: str) -> Tensor:
    """Return antialiased weights of the source pixels for each pixel of a line; float64, shape (target, source)."""
    scale = source / target
    stretch = max(scale, 1.0)
    reach = _TAPS[interpolation] / 2 * stretch
    weights = torch.zeros(target, source, dtype=torch.float64)
    for pixel in range(target):
        centre = scale * (pixel + 0.5)
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), source)
        taps = [_kernel((at - centre + 0.5) / stretch, interpolation) for at in range(first, end)]
        weights[pixel, first:end] = torch.tensor(taps, dtype=torch.float64) / math.fsum(taps)
    return weights


def fixed_point(weights: Tensor) -> tuple[Tensor, int]:
    """Return weights as integers and their shift: the most bits for which the largest weight fits in 16."""
    largest, bits = float(weights.max()), 0
    while bits < _MAX_BITS and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    shifted = weights * (1 << bits)
    return torch.trunc(shifted + torch.where(shifted < 0, -0.5, 0.5)), bits


def _kernel(distance: float, interpolation: str) -> float:
    x = abs(distance)
    if interpolation == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _CUBIC if x < 2 else 0.0


def _crop(weights: Tensor, crop_px: int) -> Tensor:
    """Return the rows of the center, padded with zeros if there are fewer, as torchvision's center_crop."""
    missing = max(0, crop_px - len(weights))
    padded = torch.nn.functional.pad(weights, (0, 0, missing // 2, (missing + 1) // 2))
    first = 0 if missing else round((len(padded) - crop_px) / 2)
    return padded[first : first + crop_px]


def _to_uint8(sums: Tensor) -> Tensor:
    return torch.floor(sums + 0.5).clamp(0, 255)
