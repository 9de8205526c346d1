"""What a backbone wants to see: the input transform that belongs to its weights."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, scale to [0, 1], normalise.

    Args:
        resize_px: Shorter side after resizing.
        crop_px: Side of the square that the backbone sees.
        interpolation: "bilinear" or "bicubic", always with antialiasing.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
    """

    resize_px: int
    crop_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def at(self, crop_px: int | None) -> "Preprocessing":
        """Return the same transform for another image size, the resize scaled alike."""
        if crop_px is None or crop_px == self.crop_px:
            return self
        return replace(self, crop_px=crop_px, resize_px=max(crop_px, round(self.resize_px * crop_px / self.crop_px)))

    def resize(self, images: Tensor) -> Tensor:
        """Return images whose shorter side is `resize_px`, shape (N, C, H, W), uint8 in and out."""
        if min(images.shape[-2:]) == self.resize_px:
            return images
        mode = F.InterpolationMode(self.interpolation)
        resized: Tensor = F.resize(images, [self.resize_px], interpolation=mode, antialias=True)
        return resized

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images as normalised float32, the same shape."""
        mean = torch.tensor(self.mean, device=images.device).mul_(255).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).mul_(255).view(-1, 1, 1)
        return images.float().sub_(mean).div_(std)

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the backbone sees in evaluation.

        Args:
            images: uint8, shape (N, C, H, W), on any device.

        Returns:
            float32, shape (N, C, crop_px, crop_px), on the same device.
        """
        return self.normalize(F.center_crop(self.resize(images), [self.crop_px, self.crop_px]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return what `to_dict` described."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
