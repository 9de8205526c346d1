"""Image files as a person sees them: upright, in colour, on white."""

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
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE}
"""Errors that say nothing of the file."""

_READ_AT_ONCE_BYTES = 1 << 24
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class UnreadableImageError(Exception):
    """A file that is no image, or not a whole one; the message is the reason in a few words."""


class DecodedImage(NamedTuple):
    """One image and what its file was.

    Args:
        image: RGB, as a person sees it; or bands that no person sees.
        digest: Hash of the file's bytes, 16 bytes.
        format: Of the file, such as "JPEG".
        mode: Of the file, such as "CMYK".
    """

    image: "Image.Image | Bands"
    digest: bytes
    format: str
    mode: str


def decode_file(path: str | os.PathLike[str]) -> DecodedImage:
    """Return a file's first frame as RGB, turned as its EXIF says, transparency on white, 16 bits scaled to 8.

    Colour profiles are not applied, as no backbone was trained with them applied.

    Raises:
        UnreadableImageError: With the reason, whatever the decoder tripped over.
        MemoryError, OSError: Where it is the machine that is at fault, not the file.
    """
    with decoding_errors(Path(path)), open_image(os.fspath(path)) as file:
        with Image.open(file, formats=picture_formats()) as image:
            image.load()
            seen = as_seen(image)
            form, mode = image.format or "", image.mode
        return DecodedImage(seen, digest_of(file), form, mode)


@contextmanager
def decoding_errors(path: Path) -> Iterator[None]:
    """Say of whatever a decoder trips over that the file can't be read, but for what is the machine's fault.

    Raises:
        UnreadableImageError: With the reason in a few words.
        MemoryError, OSError: Where it is the machine that is at fault, not the file.
    """
    try:
        yield
    except (UnreadableImageError, MemoryError):
        raise
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise UnreadableImageError(_reason(error, path)) from None
    except Exception as error:  # decoders fail on broken files in every way there is
        raise UnreadableImageError(_reason(error, path)) from None


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep Pillow's remarks on metadata, which change no pixel, from a person; for all threads of the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def content_digest(content: bytes | memoryview) -> bytes:
    """Return a hash of an image's content, 16 bytes."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def open_image(path: str) -> BinaryIO:
    """Return a file, open for reading; a small one is read already.

    Raises:
        UnreadableImageError: If it is empty, or no file at all.
    """
    # A pipe would otherwise block until somebody writes to it.
    fd = os.open(path, _FLAGS)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        os.close(fd)
        raise UnreadableImageError("empty file" if stat.S_ISREG(found.st_mode) else "not a file")
    file = os.fdopen(fd, "rb")
    if found.st_size > _READ_AT_ONCE_BYTES:
        return file
    with file:
        return BytesIO(file.read())


@cache
def picture_formats() -> tuple[str, ...]:
    """Return the formats that this Pillow reads of those that are pictures and nothing else.

    Others it would know by their content whatever the name says, and hand some to programs: PostScript to Ghostscript.
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
    """Return an image turned as its EXIF says."""
    if image.format == "JPEG" and not ({"exif", "xmp"} & image.info.keys()):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a viewer shows an image with a broken EXIF block as it lies
        return image


def as_seen(image: Image.Image) -> Image.Image:
    """Return an image as RGB, turned as its EXIF says, transparency on white, 16 bits scaled to 8."""
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
    """Return numbers that count from 0 to 1 (floats), 255 or 65,535, whichever holds them, from 0 to 255."""
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
