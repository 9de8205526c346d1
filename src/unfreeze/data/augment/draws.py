"""Random numbers as a function of seed, epoch and image.

They do not depend on the batch size, the rank or a resume. They stay on the host, so that choices need no
synchronisation with the device and are the same on every kind of device.
"""

from enum import IntEnum

import torch
from torch import Tensor

from unfreeze.system.accelerator import to_device

# More columns than names, so that a new name does not change the existing columns.
DRAWS = 32
_MASK = (1 << 64) - 1


class Draw(IntEnum):
    """Columns of the random numbers."""

    LEFT = 0
    TOP = 1
    MIRROR = 2
    AREA = 3
    RATIO = 4
    ANGLE = 5
    BRIGHTNESS = 6
    CONTRAST = 7
    SATURATION = 8
    ERASE = 9
    ERASE_AREA = 10
    ERASE_RATIO = 11
    ERASE_LEFT = 12
    ERASE_TOP = 13
    FIRST_OP = 14
    FIRST_STRENGTH = 15
    FIRST_SIGN = 16
    SECOND_OP = 17
    SECOND_STRENGTH = 18
    SECOND_SIGN = 19
    MIX = 20
    MIX_KIND = 21
    MIX_SHARE = 22
    MIX_LEFT = 23
    MIX_TOP = 24


def uniform_draws(*, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Return uniform random numbers from seed, epoch and image (SplitMix64; Steele et al. 2014).

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        indices: Indices of the images, int64, shape (N,).

    Returns:
        Random numbers in [0, 1), float32, shape (N, DRAWS), on the device of the indices.
    """
    key = _mix_int(_mix_int(seed) + epoch)
    columns = torch.arange(DRAWS, device=indices.device)
    counter = indices[:, None] * DRAWS + columns + _signed(key)
    return (_mix(counter * _signed(0x9E3779B97F4A7C15)) >> 40 & 0xFFFFFF).float() / 2**24


def between(low: float, high: float, draws: Tensor) -> Tensor:
    """Return draws in [0, 1) scaled to [low, high)."""
    return low + (high - low) * draws


def on_device_of(numbers: Tensor, images: Tensor) -> Tensor:
    """Return a host tensor on the device of the images, copied without synchronisation."""
    return to_device(numbers, images.device)


def per_image(numbers: Tensor) -> Tensor:
    """Return a tensor of shape (N,) as shape (N, 1, 1, 1), to broadcast over images."""
    return numbers.view(-1, 1, 1, 1)


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
