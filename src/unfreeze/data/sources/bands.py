"""Images with other bands than red, green and blue, such as satellite images: NumPy arrays, TIFF, alpha as a band."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources.decoding import (
    DecodedImage,
    UnreadableImageError,
    decoding_errors,
    digest_of,
    open_image,
    picture_formats,
    upright,
)
from unfreeze.errors import UnfreezeError

RGB = 3
"""Number of bands of a colour image."""

ARRAY_SUFFIX = ".npy"
_TIFF_SUFFIXES = (".tif", ".tiff")
_TIFF_PACKAGES = ("tifffile", "imagecodecs")


@dataclass(frozen=True)
class Bands:
    """An image as grey Pillow images of one size, one per band, with Pillow's methods to resize and crop.

    Args:
        bands: Grey images, at least one.
    """

    bands: tuple[Image.Image, ...]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> "Bands":
        """Return the image of an array, shape (H, W, C)."""
        return cls(tuple(Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels, -1, 0)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.bands[0].size

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.size[1]

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> "Bands":
        """Return the image resized to a width and height in pixels."""
        return Bands(tuple(band.resize(size, resample) for band in self.bands))

    def crop(self, box: tuple[int, int, int, int]) -> "Bands":
        """Return the image cropped to left, top, right and bottom."""
        return Bands(tuple(band.crop(box) for band in self.bands))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """Return the pixels, uint8, shape (H, W, C)."""
        return np.stack([np.asarray(band) for band in self.bands], axis=-1)


def decode_bands(path: str | os.PathLike[str], count: int) -> DecodedImage:
    """Return the image of a file with a number of bands; 16 bits and values from 0 to 1 are scaled to 8 bits.

    Args:
        path: Path of a NumPy array or a TIFF, shape (H, W, C) or (C, H, W), or of an image that Pillow reads with
            this number of bands, such as a PNG with alpha as the fourth.
        count: Number of bands, C.

    Raises:
        UnreadableImageError: If it can't be read or has another number of bands, with the reason.
    """
    path = Path(path)
    with decoding_errors(path), open_image(os.fspath(path)) as file:
        file_format, pixels = _READERS.get(path.suffix.lower(), _read_picture)(file)
        return DecodedImage(bands_of(pixels, count), digest_of(file), file_format, f"{count} bands")


def bands_of(pixels: NDArray[Any], count: int) -> Bands:
    """Return the image of an array, shape (H, W, C) or (C, H, W), scaled to 8 bits like that of a file.

    Raises:
        UnreadableImageError: If it has another number of bands, or values of an unknown range.
    """
    return Bands.of(_to_8_bits(_bands_last(pixels, count)))


def bands_for(in_chans: int) -> int:
    """Return the number of bands to read for a network's input channels; grey images are converted from colour."""
    return RGB if in_chans == 1 else in_chans


def check_readable(paths: Sequence[str], count: int) -> None:
    """Refuse TIFF files with other than three bands if the packages that read them are not installed.

    Raises:
        UnfreezeError: If they are not, with the command that installs them.
    """
    if count == RGB or all(map(find_spec, _TIFF_PACKAGES)):
        return
    if any(path.lower().endswith(_TIFF_SUFFIXES) for path in paths):
        raise UnfreezeError(
            f"model.in_chans: got {count}, and the images are TIFF, which needs {' and '.join(_TIFF_PACKAGES)}; "
            "type pip install 'unfreeze[bands]'"
        )


def _read_picture(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    with Image.open(file, formats=picture_formats()) as image:
        return image.format or "", np.atleast_3d(np.asarray(upright(image)))


def _read_array(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    return "NPY", np.load(file, allow_pickle=False)


def _read_tiff(file: BinaryIO) -> tuple[str, NDArray[Any]]:
    import tifffile

    logging.getLogger("tifffile").disabled = True  # the reason for a broken file is reported anyway
    return "TIFF", tifffile.imread(file)


_READERS = {ARRAY_SUFFIX: _read_array, **dict.fromkeys(_TIFF_SUFFIXES, _read_tiff)}


def _bands_last(pixels: NDArray[Any], count: int) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] == count:
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] == count:
        return np.moveaxis(pixels, 0, -1)
    raise UnreadableImageError(f"shape {' x '.join(map(str, pixels.shape))}, want {count} bands")


def _to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the values scaled to 0 to 255, from the range of their integer type or, for floats, from 0 to 1."""
    if pixels.dtype == np.uint8:
        top = 255.0
    elif pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        top = 65535.0
    elif pixels.dtype.kind == "f" and np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1:
        top = 1.0
    else:
        extent = f" from {pixels.min():g} to {pixels.max():g}" if pixels.dtype.kind in "iuf" else ""
        raise UnreadableImageError(f"{pixels.dtype} values{extent}, want uint8, uint16, or numbers from 0 to 1")
    scaled: NDArray[np.uint8] = np.rint(pixels * (255 / top)).astype(np.uint8)
    return scaled
