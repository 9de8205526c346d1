"""One shape for all images: what a batch needs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources.bands import RGB, Bands

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Frame:
    """The shape that every image of a source is brought to.

    Images that all have one small size are kept as they are and resized in batches, on the device. Others are resized
    to the shorter side that the backbone's preprocessing resizes to, and cut to the square in the centre.

    Args:
        height_px: Of the images as they are handed out.
        width_px: Likewise.
        interpolation: Of the resize, "bilinear" or "bicubic"; None for images that are kept as they are.
        bands: Of each image.
    """

    height_px: int
    width_px: int
    interpolation: str | None
    bands: int = RGB

    @classmethod
    def choose(
        cls, uniform_size: tuple[int, int] | None, *, resize_px: int, interpolation: str, bands: int = RGB
    ) -> "Frame":
        """Return the frame for images of one size, width and height in pixels, or of several (None)."""
        if uniform_size is not None and min(uniform_size) <= resize_px:
            width, height = uniform_size
            return cls(height, width, None, bands)
        return cls(resize_px, resize_px, interpolation, bands)

    @property
    def nbytes(self) -> int:
        """Bytes of one image."""
        return self.height_px * self.width_px * self.bands

    @property
    def name(self) -> str:
        """A name for files."""
        bands = "" if self.bands == RGB else f"-{self.bands}"
        return f"{self.width_px}x{self.height_px}-{self.interpolation or 'native'}{bands}"

    def holds(self, image: Image.Image | Bands) -> bool:
        """Return whether an image fits as it is, or will be made to."""
        return self.interpolation is not None or image.size == (self.width_px, self.height_px)

    def apply(self, image: Image.Image | Bands) -> NDArray[np.uint8]:
        """Return an image as uint8, shape (height_px, width_px, bands)."""
        if self.interpolation is None:
            return np.asarray(image)
        resized = _resize_short(image, self.height_px, _RESAMPLING[self.interpolation])
        return np.asarray(_center_square(resized, self.height_px))


def _resize_short(image: Image.Image | Bands, resize_px: int, resampling: Image.Resampling) -> Image.Image | Bands:
    width, height = image.size
    scale = resize_px / min(width, height)
    size = (max(resize_px, int(width * scale)), max(resize_px, int(height * scale)))
    return image.resize(size, resampling)


def _center_square(image: Image.Image | Bands, side: int) -> Image.Image | Bands:
    # Rounded as torchvision's centre crop is, so that cutting twice shows what cutting once would.
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
