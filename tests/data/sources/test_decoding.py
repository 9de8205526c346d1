"""Decoding of image files to RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unfreeze.data.sources.decoding import UnreadableImageError, content_digest, decode_file

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def pixels(path: Path) -> list[list[tuple[int, ...]]]:
    """Return a decoded file row by row."""
    image = decode_file(path).image
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, [[RED, BLUE]]),
        (2, [[BLUE, RED]]),
        (3, [[BLUE, RED]]),
        (4, [[RED, BLUE]]),
        (5, [[RED], [BLUE]]),
        (6, [[RED], [BLUE]]),
        (7, [[BLUE], [RED]]),
        (8, [[BLUE], [RED]]),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_turned_as_exif_says(tmp_path: Path, orientation: int, shown: list[list[tuple[int, ...]]], suffix: str) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    image.save(path, exif=exif)
    assert pixels(path) == shown


def test_a_photo_from_a_phone_stands_upright(tmp_path: Path) -> None:
    landscape = Image.new("RGB", (64, 32), RED)
    landscape.paste(BLUE, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    landscape.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    upright = np.asarray(decode_file(tmp_path / "phone.jpg").image).astype(int)
    assert upright.shape == (64, 32, 3)
    assert upright[4, 16, 2] > 200
    assert upright[60, 16, 0] > 200


def test_full_transparency_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert pixels(tmp_path / "clear.png") == [[WHITE] * 2] * 2


def test_half_transparency_is_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 100, 255, 128)).save(tmp_path / "half.png")
    assert pixels(tmp_path / "half.png")[0][0] == pytest.approx((127, 177, 255), abs=1)


def test_grey_with_alpha_is_mixed_with_white(tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (40, 255))
    image.putpixel((1, 0), (40, 0))
    image.save(tmp_path / "grey.png")
    assert pixels(tmp_path / "grey.png") == [[(40, 40, 40), WHITE]]


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png")
    assert pixels(tmp_path / "palette.png") == [[RED, BLUE]]


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    path = tmp_path / f"palette{suffix}"
    image.save(path, transparency=1)
    assert pixels(path) == [[RED, WHITE]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 257, 100 * 257, 65535]], dtype=np.uint16)
    path = tmp_path / f"wide{suffix}"
    Image.fromarray(wide).save(path)
    assert pixels(path) == [[(value,) * 3 for value in (0, 1, 100, 255)]]


def test_cmyk_is_shown_as_printed(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (8, 0, 16, 16))
    image.save(tmp_path / "print.tif")
    image.save(tmp_path / "print.jpg", quality=95)
    assert (pixels(tmp_path / "print.tif")[0][0], pixels(tmp_path / "print.tif")[0][15]) == (WHITE, RED)
    jpeg = np.asarray(decode_file(tmp_path / "print.jpg").image).astype(int)
    assert jpeg[8, 2] == pytest.approx(WHITE, abs=6)
    assert jpeg[8, 13] == pytest.approx(RED, abs=12)


@pytest.mark.parametrize(("mode", "value", "level"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_grey_fills_all_channels(tmp_path: Path, mode: str, value: int, level: int) -> None:
    Image.new(mode, (2, 1), value).save(tmp_path / "grey.png")
    assert pixels(tmp_path / "grey.png") == [[(level,) * 3] * 2]


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "moving.gif") == [[RED] * 2] * 2


def test_the_content_decides_not_the_extension(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), BLUE).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "claimed.jpg")
    assert pixels(tmp_path / "claimed.jpg") == [[BLUE]]


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_raises(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(UnreadableImageError):
        decode_file(tmp_path / "broken.png")


def test_half_a_file_raises(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_file(tmp_path / "half.jpg")


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    for name, colour in (("a", RED), ("b", RED), ("c", BLUE)):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{name}.png")
    a, b, c = (decode_file(tmp_path / f"{name}.png").digest for name in "abc")
    assert a == b != c
    assert len(a) == 16


def test_the_digest_of_a_large_file_is_of_all_its_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.bmp")
    content = (tmp_path / "large.bmp").read_bytes()
    assert len(content) > 1 << 24
    assert decode_file(tmp_path / "large.bmp").digest == content_digest(content)


def test_format_and_mode_are_those_of_the_file(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "claimed.png", "JPEG")
    decoded = decode_file(tmp_path / "claimed.png")
    assert (decoded.format, decoded.mode, decoded.image.mode) == ("JPEG", "CMYK", "RGB")
