"""The resize of uint8 images as products with two constant matrices, equal to torch's own to the last bit."""

import math

import torch
from torch import Tensor, nn

_TAPS = {"bilinear": 2, "bicubic": 4}
_CUBIC = -0.5
_MOST_BITS = 22


class FixedPointResize(nn.Module):
    """Resizes and crops uint8 images as torch does on a CPU: rows first, both passes rounded to uint8.

    torch scales each weight to a 16-bit integer, sums integers, and shifts. Sums of integers below 2^24 are exact in
    float32, in whatever order they are added, so that a matrix product gives the same bits wherever the graph runs,
    and needs no operator of its own. Weights and precision are those of aten/src/ATen/native/cpu/UpSampleKernel.cpp.

    Args:
        size_px: Height and width of what comes in.
        resized_px: Height and width after resizing.
        crop_px: Side of the square that is cut from the centre; zeros stand where the images do not reach.
        interpolation: "bilinear" or "bicubic".
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, size_px: tuple[int, int], resized_px: tuple[int, int], *, crop_px: int, interpolation: str
    ) -> None:
        super().__init__()
        for name, given, wanted in zip(("rows", "columns"), size_px, resized_px, strict=True):
            weights, bits = fixed_point(resize_weights(given, wanted, interpolation))
            if float(weights.abs().sum(dim=1).max()) * 255 >= 1 << 24:
                raise ValueError(f"a resize from {given} to {wanted} px needs more bits than float32 has")
            # Scaled back, which is exact: what is to be rounded down is then the sum itself.
            scaled = weights / (1 << bits)
            self.register_buffer(name, _crop(scaled, crop_px).float())

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 of whole numbers in [0, 255], shape (N, C, crop_px, crop_px), of uint8 (N, C, H, W)."""
        across = _to_uint8(images.float() @ self.columns.T)
        return _to_uint8(self.rows @ across)


def resize_weights(given: int, wanted: int, interpolation: str) -> Tensor:
    """Return what each pixel of a resized line takes of each given one, antialiased; float64, shape (wanted, given)."""
    scale = given / wanted
    stretch = max(scale, 1.0)
    reach = _TAPS[interpolation] / 2 * stretch
    weights = torch.zeros(wanted, given, dtype=torch.float64)
    for pixel in range(wanted):
        centre = scale * (pixel + 0.5)
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), given)
        taps = [_kernel((at - centre + 0.5) / stretch, interpolation) for at in range(first, end)]
        weights[pixel, first:end] = torch.tensor(taps, dtype=torch.float64) / math.fsum(taps)
    return weights


def fixed_point(weights: Tensor) -> tuple[Tensor, int]:
    """Return weights as integers, and by how many bits they were shifted: as many as let the largest fit in 16."""
    largest, bits = float(weights.max()), 0
    while bits < _MOST_BITS and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
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
    """Return the rows for the centre, with rows of zeros where there is less, as torchvision's center_crop has it."""
    missing = max(0, crop_px - len(weights))
    padded = torch.nn.functional.pad(weights, (0, 0, missing // 2, (missing + 1) // 2))
    first = 0 if missing else round((len(padded) - crop_px) / 2)
    return padded[first : first + crop_px]


def _to_uint8(sums: Tensor) -> Tensor:
    return torch.floor(sums + 0.5).clamp(0, 255)
