"""Common shape of all images of a source, as batches need it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources.bands import RGB, Bands

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class ResizeSettings(Protocol):
    """Resize settings of a backbone's preprocessing, such as `unfreeze.models.preprocessing.Preprocessing`."""

    @property
    def resize_px(self) -> int:
        """Shorter side after resizing."""

    @property
    def crop_px(self) -> int:
        """Side of the centre crop."""

    @property
    def interpolation(self) -> str:
        """Interpolation of the resize, "bilinear" or "bicubic"."""

    @property
    def squash(self) -> bool:
        """Return whether to resize both sides without keeping the aspect ratio."""


@dataclass(frozen=True)
class Resize:
    """Resize of images of several sizes before the centre crop.

    Args:
        px: Shorter side after resizing; both sides if images are squashed.
        crop_px: Side of the centre crop, which is applied later; None for no crop.
        interpolation: "bilinear" or "bicubic".
        squash: Whether to resize both sides without keeping the aspect ratio.
    """

    px: int
    crop_px: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False

    @classmethod
    def of(cls, settings: ResizeSettings) -> "Resize":
        """Return the resize of a backbone's preprocessing."""
        return cls(settings.resize_px, settings.crop_px, settings.interpolation, settings.squash)


@dataclass(frozen=True)
class Frame:
    """Common shape of all images of a source.

    Images that all have one small size stay unchanged and are resized in batches on the device. Others are resized so
    that the shorter side is that of the backbone's preprocessing, and cropped to the central square; or squashed into
    that square if the backbone was trained so.

    Args:
        height_px: Height of the decoded images.
        width_px: Width of the decoded images.
        resize: Resize of each image; None for unchanged images.
        bands: Number of bands of each image.
    """

    height_px: int
    width_px: int
    resize: Resize | None
    bands: int = RGB

    @classmethod
    def choose(cls, uniform_size: tuple[int, int] | None, resize: Resize, bands: int = RGB) -> "Frame":
        """Return the frame for images of one size, width and height in pixels, or of several sizes (None)."""
        if uniform_size is not None and min(uniform_size) <= resize.px:
            width, height = uniform_size
            if width == height or not resize.squash:
                return cls(height, width, None, bands)
        return cls(resize.px, resize.px, resize, bands)

    @property
    def native_px(self) -> tuple[int, int] | None:
        """Width and height of unchanged images; None for resized ones."""
        return (self.width_px, self.height_px) if self.resize is None else None

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height_px * self.width_px * self.bands

    @property
    def name(self) -> str:
        """Name for files."""
        resize, bands = "native", "" if self.bands == RGB else f"-{self.bands}"
        if self.resize is not None:
            how = "squash" if self.resize.squash else str(self.resize.crop_px or self.resize.px)
            resize = f"{self.resize.interpolation}-{how}"
        return f"{self.width_px}x{self.height_px}-{resize}{bands}"

    def fits(self, image: Image.Image | Bands) -> bool:
        """Return whether an image has the shape of the frame, or is resized to it."""
        return self.resize is not None or image.size == (self.width_px, self.height_px)

    def apply(self, image: Image.Image | Bands) -> NDArray[np.uint8]:
        """Return an image as uint8, shape (height_px, width_px, bands)."""
        if self.resize is None:
            return np.asarray(image)
        resampling = _RESAMPLING[self.resize.interpolation]
        if self.resize.squash:
            return np.asarray(image.resize((self.width_px, self.height_px), resampling))
        resized = _resize_short(image, self.resize.px, resampling)
        return np.asarray(_center_square(resized, self.resize.px, self.resize.crop_px or self.resize.px))


def _resize_short(image: Image.Image | Bands, resize_px: int, resampling: Image.Resampling) -> Image.Image | Bands:
    width, height = image.size
    short = min(width, height)
    return image.resize((resize_px * width // short, resize_px * height // short), resampling)


def _center_square(image: Image.Image | Bands, side: int, crop: int) -> Image.Image | Bands:
    """Return the square whose own centre crop is that of the image, with the rounding of torchvision and timm."""
    left, top = (round((length - crop) / 2) - round((side - crop) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))
