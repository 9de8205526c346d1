"""Input transform of a backbone's weights."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

_CACHED_VALUES = 1 << 18
"""Number of floats that fit into the cache of a core."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize of the shorter side or of both, centre crop, scaling to [0, 1], and normalisation.

    Args:
        resize_px: Shorter side after resizing; both sides if images are squashed.
        crop_px: Side of the centre crop.
        interpolation: "bilinear" or "bicubic", always with antialiasing.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel, for values in [0, 1].
        squash: Whether to resize both sides without keeping the aspect ratio.
    """

    resize_px: int
    crop_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    squash: bool = False

    def at(self, crop_px: int | None) -> "Preprocessing":
        """Return the same transform for another image size, with the resize in proportion."""
        if crop_px is None or crop_px == self.crop_px:
            return self
        return replace(self, crop_px=crop_px, resize_px=max(crop_px, round(self.resize_px * crop_px / self.crop_px)))

    def for_channels(self, in_chans: int) -> "Preprocessing":
        """Return the same transform for another number of channels: the mean for one, the values in turn for more.

        Args:
            in_chans: Number of channels, >= 1.
        """
        if in_chans == len(self.mean):
            return self
        if in_chans == 1:
            mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
            return replace(self, mean=(mean,), std=(std,))
        channels = [channel % len(self.mean) for channel in range(in_chans)]
        return replace(self, mean=tuple(self.mean[i] for i in channels), std=tuple(self.std[i] for i in channels))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return len(self.mean), self.crop_px, self.crop_px

    def resize(self, images: Tensor) -> Tensor:
        """Return images resized to `resize_px` by the shorter side, or by both; uint8, shape (N, C, H, W)."""
        sides = images.shape[-2:] if self.squash else (min(images.shape[-2:]),)
        if set(sides) == {self.resize_px}:
            return images
        mode = F.InterpolationMode(self.interpolation)
        # The result is the same, several times faster with channels last.
        images = images.contiguous(memory_format=torch.channels_last)
        resized: Tensor = F.resize(images, [self.resize_px] * len(sides), interpolation=mode, antialias=True)
        return resized

    def normalize(self, images: Tensor) -> Tensor:
        """Return normalised images, float32, channels last in memory.

        Args:
            images: Images in [0, 255], shape (N, C, H, W); RGB is converted to grey for a network with one channel.
        """
        if len(self.mean) == 1 and images.shape[1] == 3:
            images = F.rgb_to_grayscale(images)
        count, channels, height, width = images.shape
        scale, shift = _row_of(self.mean, self.std, width, images.device)
        if images.requires_grad:
            # Autograd does not support writing into a preallocated output.
            by_channel = (1, channels, 1, 1)
            scale, shift = scale[:channels].view(by_channel), shift[:channels].view(by_channel)
            return torch.addcmul(shift, images.float(), scale).contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last)
        rows, pixels = out.permute(0, 2, 3, 1).flatten(2), images.permute(0, 2, 3, 1)
        on_cpu = images.device.type == "cpu"
        step = max(1, _CACHED_VALUES // max(1, channels * height * width)) if on_cpu else max(1, count)
        for start in range(0, count, step):
            block = pixels[start : start + step].float().reshape(-1, height, width * channels)
            torch.addcmul(shift, block, scale, out=rows[start : start + step])
        return out

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input for evaluation.

        Args:
            images: Images, uint8, shape (N, C, H, W), on any device.

        Returns:
            Input, float32, shape (N, C, crop_px, crop_px), on the same device.
        """
        return self.normalize(F.center_crop(self.resize(images), [self.crop_px, self.crop_px]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the transform of a record by `to_dict`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


@lru_cache(maxsize=32)
def _row_of(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift for a row of pixels, channels last; cached, as they are copied to the device."""
    scale = 1 / (255 * torch.tensor(std))
    shift = -255 * torch.tensor(mean) * scale
    return scale.repeat(width).to(device), shift.repeat(width).to(device)
