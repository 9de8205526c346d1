"""Unusual and broken image files with the expected result of each."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)

Write = Callable[[Path], None]


def two_halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Return an image that is red on its left and blue on its right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def _save(image: Image.Image, **options: object) -> Write:
    return lambda path: image.save(path, **options)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _palette(*, transparency: int | None = None) -> Image.Image:
    image = Image.new("P", (32, 16), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (16, 0, 32, 16))
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def _with_alpha(mode: str, colour: tuple[int, ...]) -> Image.Image:
    image = two_halves().convert(mode)
    image.paste(colour, (16, 0, 32, 16))
    return image


def _png(bits: int, kind: int, row: bytes, *, width: int, height: int, extra: bytes = b"") -> bytes:
    """Return a PNG made by hand, each row alike."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * height)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _png_16_bit_colour() -> bytes:
    row = struct.pack(">3H", 65535, 0, 0) * 16 + struct.pack(">3H", 0, 0, 65535) * 16
    return _png(16, 2, row, width=32, height=16)


def _png_16_bit_grey() -> bytes:
    return _png(16, 0, struct.pack(">H", 128 * 257) * 32, width=32, height=16)


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _frames(form: str) -> Write:
    def write(path: Path) -> None:
        others = [Image.new("RGB", (32, 16), GREEN)] * 2
        two_halves().save(path, form, save_all=True, append_images=others)

    return write


def _bytes(content: bytes) -> Write:
    return lambda path: path.write_bytes(content) and None


def _half(form: str, **options: object) -> Write:
    whole = _encoded(noise(), form, **options)
    return _bytes(whole[: len(whole) // 2])


def _float_with_gaps() -> np.ndarray:
    values = np.full((16, 32), 128 / 255, dtype=np.float32)
    values[0, :3] = np.inf, -np.inf, np.nan
    return values


_HALVES = (RED, BLUE)
_ON_WHITE = (RED, WHITE)
_ALL_GREY = (GREY, GREY)

# Name, how it is written, and the colours that a person sees on the left and on the right of a 32 x 16 image.
READABLE: list[tuple[str, Write, tuple[tuple[int, ...], tuple[int, ...]]]] = [
    ("plain.jpg", _save(two_halves(), quality=95, subsampling=0), _HALVES),
    ("progressive.jpg", _save(two_halves(), quality=95, subsampling=0, progressive=True), _HALVES),
    ("grey.jpg", _save(Image.new("L", (32, 16), 128)), _ALL_GREY),
    ("cmyk.jpg", _save(two_halves().convert("CMYK"), quality=95, subsampling=0), _HALVES),
    ("upper.JPG", _bytes(_encoded(two_halves(), "JPEG", quality=95, subsampling=0)), _HALVES),
    (
        "phone.jpeg",
        _save(two_halves().transpose(Image.Transpose.ROTATE_90), exif=_exif(6), quality=95, subsampling=0),
        _HALVES,
    ),
    (
        "upside_down.jpg",
        _save(two_halves().transpose(Image.Transpose.ROTATE_180), exif=_exif(3), quality=95, subsampling=0),
        _HALVES,
    ),
    ("bad_exif.jpg", _save(two_halves(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95, subsampling=0), _HALVES),
    ("really_a_png.jpg", _bytes(_encoded(two_halves(), "PNG")), _HALVES),
    ("several.mpo", _frames("MPO"), _HALVES),
    ("plain.png", _save(two_halves()), _HALVES),
    ("palette.png", _save(_palette()), _HALVES),
    ("palette_transparent.png", lambda path: _palette().save(path, transparency=1), _ON_WHITE),
    ("palette_alpha_bytes.png", lambda path: _palette().save(path, transparency=b"\xff\x00"), _ON_WHITE),
    ("alpha.png", _save(_with_alpha("RGBA", (0, 0, 0, 0))), _ON_WHITE),
    ("grey_alpha.png", _save(Image.new("LA", (32, 16), (128, 255))), _ALL_GREY),
    ("transparent_colour.png", lambda path: two_halves().save(path, transparency=BLUE), _ON_WHITE),
    ("bilevel.png", _save(Image.new("1", (32, 16), 1)), (WHITE, WHITE)),
    ("grey16.png", _bytes(_png_16_bit_grey()), _ALL_GREY),
    ("colour16.png", _bytes(_png_16_bit_colour()), _HALVES),
    ("animated.png", _frames("PNG"), _HALVES),
    ("interlaced_grey4.png", _bytes(_png(4, 0, b"\x88" * 16, width=32, height=16)), ((136,) * 3, (136,) * 3)),
    ("turned.png", _save(two_halves().transpose(Image.Transpose.ROTATE_90), exif=_exif(6)), _HALVES),
    ("plain.gif", _save(two_halves()), _HALVES),
    ("animated.gif", _frames("GIF"), _HALVES),
    ("transparent.gif", lambda path: _palette().save(path, transparency=1), _ON_WHITE),
    ("plain.webp", _save(two_halves(), lossless=True), _HALVES),
    ("alpha.webp", _save(_with_alpha("RGBA", (0, 0, 0, 0)), lossless=True), _ON_WHITE),
    (
        "animated.webp",
        lambda path: two_halves().save(
            path, save_all=True, append_images=[Image.new("RGB", (32, 16), GREEN)], lossless=True
        ),
        _HALVES,
    ),
    ("plain.bmp", _save(two_halves()), _HALVES),
    ("palette.bmp", _save(_palette()), _HALVES),
    ("bilevel.bmp", _save(Image.new("1", (32, 16), 0)), ((0, 0, 0), (0, 0, 0))),
    ("plain.tif", _save(two_halves()), _HALVES),
    ("lzw.tiff", _save(two_halves(), compression="tiff_lzw"), _HALVES),
    ("pages.tif", _frames("TIFF"), _HALVES),
    ("cmyk.tif", _save(two_halves().convert("CMYK")), _HALVES),
    ("grey16.tif", _save(Image.fromarray(np.full((16, 32), 128 * 257, dtype=np.uint16))), _ALL_GREY),
    ("float.tif", _save(Image.fromarray(np.full((16, 32), 128 / 255, dtype=np.float32))), _ALL_GREY),
    ("int32.tif", _save(Image.fromarray(np.full((16, 32), 128 * 257, dtype=np.int32))), _ALL_GREY),
    ("int32_small.tif", _save(Image.fromarray(np.full((16, 32), 128, dtype=np.int32))), _ALL_GREY),
    ("float_gaps.tif", _save(Image.fromarray(_float_with_gaps())), _ALL_GREY),
    ("turned.tif", _save(two_halves().transpose(Image.Transpose.ROTATE_90), exif=_exif(6)), _HALVES),
    ("plain.ppm", _save(two_halves()), _HALVES),
    ("plain.tga", _save(two_halves()), _HALVES),
    ("plain.jp2", _save(two_halves()), _HALVES),
    ("łódź 100% [猫]=ß.png", _save(two_halves()), _HALVES),
    ("'quoted' \"name\";$(x).png", _save(two_halves()), _HALVES),
]

# Name, how it is written, and what is said of it.
UNREADABLE: list[tuple[str, Write, str]] = [
    ("empty.jpg", _bytes(b""), "empty file"),
    ("page.jpg", _bytes(b"\n<!DOCTYPE html><html>404</html>"), "a web page, not an image"),
    (
        "drawing.png",
        _bytes(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
        "a web page, not an image",
    ),
    ("text.png", _bytes(b"not an image at all"), "not an image"),
    ("zeros.jpg", _bytes(bytes(5000)), "not an image"),
    ("half.jpg", _half("JPEG"), "truncated"),
    ("half.png", _half("PNG"), "truncated"),
    ("half.webp", _half("WEBP", lossless=True), "decoder"),
    ("half.gif", _half("GIF"), "truncated"),
    ("half.bmp", _half("BMP"), "truncated"),
    ("half.tif", _half("TIFF"), "truncated"),
    ("signature.png", _bytes(b"\x89PNG\r\n\x1a\n"), ""),
    ("bad_crc.png", _bytes(_encoded(two_halves(), "PNG").replace(b"IDAT", b"IDAX", 1)), ""),
    ("header.jpg", _bytes(_encoded(noise(), "JPEG")[:200]), ""),
    ("bomb.png", _bytes(_png(8, 2, b"\0" * 3, width=60_000, height=60_000)[:200]), "a decompression bomb"),
    ("nothing.tif", _save(Image.fromarray(np.full((16, 32), np.nan, dtype=np.float32))), "no pixel is a finite number"),
    ("broken_link.jpg", lambda path: path.symlink_to("nowhere.jpg"), "broken link"),
    ("pipe.jpg", lambda path: os.mkfifo(path), "not a file"),
    ("nul\tand\nnewline.png", _bytes(b"x"), "not an image"),
]
