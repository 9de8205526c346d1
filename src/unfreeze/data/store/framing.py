"""One shape for all images: what a batch needs."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources.bands import RGB, Bands

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class SeenResized(Protocol):
    """What says how a backbone wants to see images, such as `unfreeze.models.preprocessing.Preprocessing`."""

    @property
    def resize_px(self) -> int:
        """Shorter side after resizing."""

    @property
    def crop_px(self) -> int:
        """Side of the square that is cut from the centre."""

    @property
    def interpolation(self) -> str:
        """Of the resize, "bilinear" or "bicubic"."""

    @property
    def squash(self) -> bool:
        """Whether both sides are resized, whatever the shape."""


@dataclass(frozen=True)
class Resize:
    """How images of several sizes are brought to one, before a square is cut from the centre.

    Args:
        px: Shorter side after resizing; both sides where images are squashed.
        crop_px: Side of that square, which is cut later; None for all of it.
        interpolation: "bilinear" or "bicubic".
        squash: Resize both sides, whatever the shape.
    """

    px: int
    crop_px: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False

    @classmethod
    def of(cls, seen: SeenResized) -> "Resize":
        """Return the resize of a backbone's preprocessing."""
        return cls(seen.resize_px, seen.crop_px, seen.interpolation, seen.squash)


@dataclass(frozen=True)
class Frame:
    """The shape that every image of a source is brought to.

    Images that all have one small size are kept as they are and resized in batches, on the device. Others are resized
    to the shorter side that the backbone's preprocessing resizes to, and cut to the square in the centre; or squashed
    into that square, where that is what the backbone has seen.

    Args:
        height_px: Of the images as they are handed out.
        width_px: Likewise.
        resize: How they are made so; None for images that are kept as they are.
        bands: Of each image.
    """

    height_px: int
    width_px: int
    resize: Resize | None
    bands: int = RGB

    @classmethod
    def choose(cls, uniform_size: tuple[int, int] | None, resize: Resize, bands: int = RGB) -> "Frame":
        """Return the frame for images of one size, width and height in pixels, or of several (None)."""
        if uniform_size is not None and min(uniform_size) <= resize.px:
            width, height = uniform_size
            if width == height or not resize.squash:
                return cls(height, width, None, bands)
        return cls(resize.px, resize.px, resize, bands)

    @property
    def native_px(self) -> tuple[int, int] | None:
        """Width and height of images that are kept as they are; None for others."""
        return (self.width_px, self.height_px) if self.resize is None else None

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height_px * self.width_px * self.bands

    @property
    def name(self) -> str:
        """A name for files."""
        resize, bands = "native", "" if self.bands == RGB else f"-{self.bands}"
        if self.resize is not None:
            how = "squash" if self.resize.squash else str(self.resize.crop_px or self.resize.px)
            resize = f"{self.resize.interpolation}-{how}"
        return f"{self.width_px}x{self.height_px}-{resize}{bands}"

    def holds(self, image: Image.Image | Bands) -> bool:
        """Return whether an image fits as it is, or will be made to."""
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
    """Return a square of which the centre is that of the image, wherever torchvision's and timm's crop rounds to."""
    left, top = (round((length - crop) / 2) - round((side - crop) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))
