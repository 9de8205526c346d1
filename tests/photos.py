"""Tiny photos for tests: each of a colour that its path alone decides."""

from hashlib import blake2b
from pathlib import Path

from PIL import Image


def photo(seed: str, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Return an image of one colour with one corner of another, so that no two seeds look alike."""
    first, second = (tuple(blake2b(f"{seed}{i}".encode(), digest_size=3).digest()) for i in (0, 1))
    image = Image.new("RGB", size, first)
    image.paste(second, (0, 0, max(1, size[0] // 2), max(1, size[1] // 2)))
    return image


def save_photo(path: Path, *, seed: str | None = None, size: tuple[int, int] = (12, 10)) -> Path:
    """Write an image file; its suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(str(path.name) if seed is None else seed, size).save(path)
    return path
