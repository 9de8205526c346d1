"""Image files as a person sees them: upright, in colour, on white."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def decode_file(path: Path) -> Image.Image:
    """Return a file's first frame as RGB, turned as its EXIF says, transparency on white, 16 bits scaled to 8.

    Raises:
        OSError: If the file can't be read as an image.
        ValueError, SyntaxError: Likewise, from some decoders.
    """
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _to_rgb(upright)


def file_size_px(path: Path) -> tuple[int, int]:
    """Return width and height as shown, from the header alone."""
    with Image.open(path) as image:
        width, height = image.size
        sideways = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
        if sideways and image.format == "TIFF":
            # Pillow turns these by itself, and from some version on tells the turned size before it does.
            image.load()
            return image.size
    return (height, width) if sideways else (width, height)


def file_digest(path: Path) -> bytes:
    """Return a hash of a file's bytes, 16 bytes."""
    return blake2b(path.read_bytes(), digest_size=16).digest()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(wide / 257, 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")
