"""Decoding of image files to RGB as an image viewer shows them: upright, on a white background."""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from unfreeze.system.files import strange_content

if TYPE_CHECKING:
    from unfreeze.data.sources.bands import Bands

DIGEST_BYTES = 16
_CHUNK_BYTES = 1 << 20
_PICTURES = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "ICO")
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE}
"""Errors of the machine, not of the file."""

_READ_AT_ONCE_BYTES = 1 << 24
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UnreadableImageError(Exception):
    """A file that is not an image or is truncated; the message is the reason in a few words."""


class DecodedImage(NamedTuple):
    """A decoded image with facts about its file.

    Args:
        image: Image in RGB, or in other bands.
        digest: Hash of the file's content, 16 bytes.
        format: Format of the file, such as "JPEG".
        mode: Mode of the file, such as "CMYK".
    """

    image: "Image.Image | Bands"
    digest: bytes
    format: str
    mode: str


def decode_file(path: str | os.PathLike[str]) -> DecodedImage:
    """Return the first frame of a file as RGB: rotated by its EXIF, transparency on white, 16 bits scaled to 8.

    Colour profiles are not applied, as backbones were trained without them.

    Raises:
        UnreadableImageError: If the decoder fails in any way, with the reason.
        MemoryError, OSError: If the machine fails, not the file.
    """
    with decoding_errors(Path(path)), open_image(os.fspath(path)) as file:
        with Image.open(file, formats=picture_formats()) as image:
            image.load()
            rgb = as_seen(image)
            file_format, mode = image.format or "", image.mode
        return DecodedImage(rgb, digest_of(file), file_format, mode)


@contextmanager
def decoding_errors(path: Path) -> Iterator[None]:
    """Convert the errors of a decoder, but not those of the machine, into `UnreadableImageError`.

    Raises:
        UnreadableImageError: If the decoder fails, with the reason in a few words.
        MemoryError, OSError: If the machine fails, not the file.
    """
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except OSError as error:
        if error.errno in _TRANSIENT:
            raise
        raise UnreadableImageError(_reason(error, path)) from None
    except Exception as error:  # decoders raise all kinds of exceptions for broken files
        raise UnreadableImageError(_reason(error, path)) from None


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence Pillow's warnings about metadata, which do not concern pixels; for all threads of the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def content_digest(content: bytes | memoryview) -> bytes:
    """Return a hash of an image's content, 16 bytes."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def open_image(path: str) -> BinaryIO:
    """Return a file open for reading; a small file is read into memory.

    Raises:
        UnreadableImageError: If it is empty, or not a regular file.
    """
    # Opening a pipe would otherwise block until it has a writer.
    fd = os.open(path, _FLAGS)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        os.close(fd)
        raise UnreadableImageError("empty file" if stat.S_ISREG(status.st_mode) else "not a file")
    file = os.fdopen(fd, "rb")
    if status.st_size > _READ_AT_ONCE_BYTES:
        return file
    with file:
        return BytesIO(file.read())


@cache
def picture_formats() -> tuple[str, ...]:
    """Return the picture formats that the installed Pillow reads.

    Others are left out: Pillow detects formats by content, and runs programs for some, such as Ghostscript for
    PostScript.
    """
    Image.init()
    return tuple(name for name in _PICTURES if name in Image.OPEN)


def digest_of(file: BinaryIO) -> bytes:
    """Return the hash of an open file's content, 16 bytes."""
    if isinstance(file, BytesIO):
        return content_digest(file.getbuffer())
    file.seek(0)
    total = blake2b(digest_size=DIGEST_BYTES)
    while chunk := file.read(_CHUNK_BYTES):
        total.update(chunk)
    return total.digest()


def upright(image: Image.Image) -> Image.Image:
    """Return an image rotated by its EXIF orientation."""
    if image.format == "JPEG" and not ({"exif", "xmp"} & image.info.keys()):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # viewers ignore a broken EXIF block
        return image


def as_seen(image: Image.Image) -> Image.Image:
    """Return an image as RGB: rotated by its EXIF, transparency on white, 16 bits scaled to 8."""
    return _to_rgb(upright(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey_to_rgb(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        return _grey_to_rgb(_scaled_to_8_bits(np.asarray(image).astype(np.float64), is_float=image.mode == "F"))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(values: NDArray[np.float64], *, is_float: bool) -> NDArray[np.float64]:
    """Return the values scaled to 0 to 255, from the smallest range of 1 (floats), 255 or 65,535 that holds them."""
    finite = np.isfinite(values)
    if not finite.any():
        raise UnreadableImageError("no pixel is a finite number")
    values = np.where(finite, values, 0)
    most = values.max()
    top = next((full for full in ((1,) * is_float + (255, 65535)) if most <= full), most)
    scaled: NDArray[np.float64] = values * (255 / top)
    return scaled


def _grey_to_rgb(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")


def _reason(error: Exception, path: Path) -> str:
    match error:
        case UnidentifiedImageError():
            content = strange_content(path)
            return f"{content}, not an image" if content else "not an image"
        case FileNotFoundError():
            return "broken link" if path.is_symlink() else "no such file"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, a decompression bomb"
        case OSError() if error.strerror:
            return error.strerror.lower()
    return (str(error) or type(error).__name__).splitlines()[0]
