"""Images with other than three bands: readable files, scaling, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources import bands as bands_module
from unfreeze.data.sources.bands import Bands, decode_bands
from unfreeze.data.sources.decoding import UnreadableImageError
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import StoreOptions, build_store
from unfreeze.errors import UnfreezeError

tifffile = pytest.importorskip("tifffile", reason="the extra 'bands' is not installed")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 5), dtype=np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize(
    ("name", "pixels", "options"),
    [
        ("a.npy", PIXELS, {}),
        ("a.npy", np.moveaxis(PIXELS, -1, 0), {}),
        ("a.npy", np.asfortranarray(PIXELS), {}),
        ("a.npy", PIXELS.astype(np.uint16) * 257, {}),
        ("a.npy", (PIXELS.astype(np.uint16) * 257).astype(">u2"), {}),
        ("a.npy", PIXELS / 255, {}),
        ("a.npy", (PIXELS / 255).astype(np.float32), {}),
        ("A.TIF", PIXELS, {"photometric": "minisblack"}),
        ("a.tiff", np.moveaxis(PIXELS, -1, 0), {"photometric": "minisblack", "planarconfig": "separate"}),
        ("a.tif", PIXELS.astype(np.uint16) * 257, {"photometric": "minisblack", "compression": "lzw"}),
        ("a.tif", PIXELS, {"photometric": "minisblack", "compression": "deflate", "tile": (16, 16)}),
    ],
)
def test_arrays_and_tiff_are_read_as_they_are(
    name: str, pixels: NDArray[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    decoded = decode_bands(write(tmp_path / name, pixels, **options), 5)
    assert isinstance(decoded.image, Bands)
    assert decoded.image.size == (9, 6)
    assert np.array_equal(np.asarray(decoded.image), PIXELS)
    assert decoded.mode == "5 bands"


@pytest.mark.parametrize(("suffix", "count", "mode"), [("png", 4, "RGBA"), ("png", 2, "LA"), ("tif", 4, "CMYK")])
def test_pictures_keep_what_they_have(suffix: str, count: int, mode: str, tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., :count].copy(), mode).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(np.asarray(decode_bands(tmp_path / f"a.{suffix}", count).image), PIXELS[..., :count])


def test_they_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS[..., :4].copy(), "RGBA").save(tmp_path / "a.png", exif=exif)
    seen = np.asarray(decode_bands(tmp_path / "a.png", 4).image)
    assert np.array_equal(seen, np.rot90(PIXELS[..., :4], -1))


@pytest.mark.parametrize(
    ("name", "pixels", "reason"),
    [
        ("a.npy", PIXELS[..., :4], "shape 6 x 9 x 4, want 5 bands"),
        ("a.npy", PIXELS[..., 0], "shape 6 x 9, want 5 bands"),
        ("a.tif", PIXELS[..., :3], "shape 6 x 9 x 3, want 5 bands"),
        (
            "a.npy",
            PIXELS.astype(np.int16) - 3,
            "int16 values from -3 to .*, want uint8, uint16, or numbers from 0",
        ),
        ("a.npy", PIXELS.astype(np.float32), "float32 values from 0 to 255, want"),
        ("a.npy", np.full((6, 9, 5), np.nan), "float64 values from nan to nan, want"),
        ("a.npy", np.full((6, 9, 5), None), "allow_pickle=False"),
    ],
)
def test_what_is_something_else_says_so(name: str, pixels: NDArray[Any], reason: str, tmp_path: Path) -> None:
    if name.endswith(".npy"):
        np.save(tmp_path / name, pixels, allow_pickle=True)
    else:
        write(tmp_path / name, pixels)
    with pytest.raises(UnreadableImageError, match=reason):
        decode_bands(tmp_path / name, 5)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.png"])
@pytest.mark.parametrize("content", [b"", b"no image", b"\x93NUMPY\x01\x00", b"II*\x00\xff\xff\xff\xff"])
def test_broken_files_are_unreadable_and_nothing_else_is_said(
    name: str, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError):
        decode_bands(tmp_path / name, 5)
    assert not caplog.records


def test_a_file_that_was_cut_off_is_unreadable_and_nothing_else_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.tif", np.repeat(PIXELS, 20, axis=0), photometric="minisblack", compression="lzw")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError):
        decode_bands(tmp_path / "a.tif", 5)
    assert not caplog.records


def test_without_what_reads_tiff_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("field", "wood"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.tif", PIXELS, photometric="minisblack")
    monkeypatch.setattr(bands_module, "find_spec", lambda name: None if name == "imagecodecs" else name)
    with pytest.raises(UnfreezeError, match=r"pip install 'unfreeze\[bands\]'"):
        folder_source(tmp_path, bands=5)
    assert len(folder_source(tmp_path).images) == 2


@pytest.mark.parametrize("place", ["ram", "disk", "off"])
@pytest.mark.parametrize("sizes", [((9, 9), (9, 9)), ((20, 30), (40, 9))])
def test_a_store_frames_each_band_as_pillow_would(
    place: Any, sizes: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    for name, size in zip(("field", "wood"), sizes, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        write(tmp_path / "images" / name / "a.npy", random.integers(0, 256, (*size, 5), dtype=np.uint8))
    source = folder_source(tmp_path / "images", bands=5)
    options = StoreOptions(place, folder=tmp_path / "kept", workers=0)
    for _ in range(2):  # the second time from what the first has kept
        store = build_store(source, Resize(16), options=options)
        pixels = store.read(np.array([0, 1]))
        side = 9 if sizes[0] == sizes[1] else 16
        assert pixels.shape == (2, 5, side, side)
    for index in range(2):
        whole = np.load(tmp_path / "images" / source.images.name(index))
        for band in range(5):
            alone = np.repeat(whole[..., band : band + 1], 3, axis=2)
            expected = store.frame.apply(Image.fromarray(alone))[..., 0]
            assert np.array_equal(pixels[index, band].numpy(), expected)


def test_the_same_files_in_other_bands_are_other_images(tmp_path: Path) -> None:
    for name in ("field", "wood"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS[..., :4].copy(), "RGBA").save(tmp_path / name / "a.png")
    assert folder_source(tmp_path).images.state() != folder_source(tmp_path, bands=4).images.state()
