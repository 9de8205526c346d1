"""The image store: pixels, fingerprints, and errors about unreadable files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms.functional import pil_to_tensor

from tests.photos import photo, save_photo
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import ImageStore, StoreOptions, build_store, contradicting_images, shared_images
from unfreeze.errors import UnfreezeError
from unfreeze.models.architecture import find_architecture

MakeFolder = Callable[..., Path]


def noise(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def source_of(pixels: np.ndarray, *, labels: list[int] | None = None) -> ImageSource:
    return ImageSource(
        name="noise",
        classes=("a", "b"),
        images=ArrayImages(pixels),
        labels=np.array(labels or [i % 2 for i in range(len(pixels))]),
        splits=np.full(len(pixels), "train"),
    )


def store_of(source: ImageSource, resize_px: int = 16) -> ImageStore:
    return build_store(source, Resize(resize_px), options=StoreOptions(workers=2))


def images_of(store: ImageStore) -> torch.Tensor:
    return store.read(np.arange(len(store.facts.digests)))


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (16, 40), (12, 9)])
def test_images_of_one_small_size_are_kept_as_they_are(size: tuple[int, int]) -> None:
    pixels = noise(5, *size)
    store = store_of(source_of(pixels))
    assert images_of(store).dtype == torch.uint8
    assert torch.equal(images_of(store), torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert store.pixels.nbytes == pixels.nbytes


def test_larger_images_are_resized_and_cut_to_the_square_in_the_centre() -> None:
    wide = np.zeros((1, 20, 60, 3), dtype=np.uint8)
    wide[:, :, 20:40] = 255
    assert torch.equal(
        images_of(store_of(source_of(wide), 10))[..., 2:-2], torch.full((1, 3, 10, 6), 255, dtype=torch.uint8)
    )
    tall = wide.transpose(0, 2, 1, 3)
    assert torch.equal(
        images_of(store_of(source_of(tall), 10)), images_of(store_of(source_of(wide), 10)).transpose(2, 3)
    )


def test_images_of_several_sizes_end_as_one(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 2, "b": 2}, size=(50, 20))
    save_photo(root / "a" / "small.png", size=(7, 5))
    store = store_of(folder_source(root))
    assert images_of(store).shape == (5, 3, 16, 16)


def test_images_stand_in_the_order_of_their_source(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"a": 40, "b": 30}))
    images = images_of(store_of(source))
    for index in (0, 1, 39, 40, 69):
        label, number = ("a", index) if index < 40 else ("b", index - 40)
        name = sorted(f"{i}.png" for i in range(40 if label == "a" else 30))[number]
        expected = pil_to_tensor(photo(f"{label}{name.removesuffix('.png')}"))
        assert torch.equal(images[index], expected)


def test_the_number_of_threads_changes_nothing() -> None:
    source = source_of(noise(40, 30, 21))
    one, four = (build_store(source, Resize(12), options=StoreOptions(workers=workers)) for workers in (1, 4))
    assert torch.equal(images_of(one), images_of(four))
    assert one.fingerprint == four.fingerprint


def test_progress_ends_with_the_number_of_images() -> None:
    counts: list[int] = []
    build_store(source_of(noise(300, 4, 4)), Resize(4), progress=counts.append)
    assert counts == sorted(set(counts))
    assert counts[-1] == 300


@pytest.mark.parametrize("size", [(301, 299), (303, 299), (375, 500), (256, 259), (90, 160), (1200, 803), (500, 750)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_b2", "swin_t"])
def test_what_a_backbone_sees_is_what_torchvisions_preset_gives(name: str, size: tuple[int, int]) -> None:
    architecture = find_architecture(name)
    preprocessing = architecture.preprocessing()
    image = Image.fromarray(noise(1, 9, 11)[0]).resize(size, Image.Resampling.BICUBIC)
    store = build_store(
        source_of(np.asarray(image)[None]),
        Resize.of(preprocessing),
    )
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    levels = (
        (preprocessing(images_of(store))[0] - get_model_weights(name).DEFAULT.transforms()(image)).abs() * std * 255
    )
    # Both resize by PIL, but for small images, which tensors resize and round a step or two apart.
    assert levels.max() <= 2.01
    assert levels.mean() <= 0.02


def test_the_fingerprint_is_the_same_for_the_same_content_elsewhere(photo_folder: MakeFolder) -> None:
    first, second = (folder_source(photo_folder({"a": 3, "b": 2}, name=name)) for name in ("one", "two"))
    assert store_of(first).fingerprint == store_of(second).fingerprint
    assert len(store_of(first).fingerprint) == 32


def test_the_fingerprint_does_not_depend_on_the_resolution() -> None:
    source = source_of(noise(4, 30, 30))
    assert store_of(source, 8).fingerprint == store_of(source, 64).fingerprint


def test_the_fingerprint_changes_with_pixels_labels_names_splits_and_order() -> None:
    pixels = noise(4, 6, 6)
    source = source_of(pixels)
    one_off = pixels.copy()
    one_off[3, 5, 5, 2] ^= 1
    others = [
        replace(source, images=ArrayImages(one_off)),
        replace(source, images=ArrayImages(pixels[::-1].copy())),
        replace(source, labels=1 - source.labels),
        replace(source, classes=("a", "c")),
        replace(source, splits=np.array(["train", "train", "train", "test"])),
    ]
    prints = {store_of(changed).fingerprint for changed in [source, *others]}
    assert len(prints) == 6


def test_shared_images_are_counted_byte_for_byte() -> None:
    pixels = noise(6, 5, 5)
    pixels[4], pixels[5] = pixels[0], pixels[1]
    pixels[5, 0, 0, 0] ^= 1
    store = store_of(source_of(pixels))
    train, test = np.arange(4), np.array([4, 5])
    assert shared_images(store, train, test) == 1
    assert shared_images(store, train, np.array([], dtype=np.int64)) == 0
    assert shared_images(store, train, np.array([4, 0, 4])) == 3


def test_truncated_files_alone_are_named_too(photo_folder: MakeFolder) -> None:
    root = photo_folder({"cat": 2, "dog": 2}, size=(64, 64))
    for name in ("cat/0.png", "dog/1.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnfreezeError, match=r"2 of 4 images can't be read.* cat/0.png \(.*, dog/1.png \("):
        store_of(folder_source(root))


def test_a_folder_of_turned_photos_is_kept_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder in ("a", "b"):
        for number, suffix in enumerate((".jpg", ".png", ".tif")):
            (tmp_path / folder).mkdir(exist_ok=True)
            photo(f"{folder}{number}", (14, 8)).save(tmp_path / folder / f"{number}{suffix}", exif=exif)
    assert images_of(store_of(folder_source(tmp_path))).shape == (6, 3, 14, 8)


@pytest.mark.parametrize(
    ("labels", "count"), [([0, 1, 1, 2], 2), ([0, 0, 1, 2], 0), ([[0, 1], [0, 0], [1, 1], [2, 2]], 2)]
)
def test_equal_images_with_different_labels_are_counted(labels: list, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    pixels[1] = pixels[0]
    source = ImageSource("noise", tuple("abc"), ArrayImages(pixels), np.array([0, 1, 1, 2]), np.full(4, "train"))
    store = build_store(source, Resize(8))
    assert contradicting_images(store, np.arange(4), np.array(labels)) == count
    assert contradicting_images(store, np.array([0, 2, 3]), np.array(labels)) == 0
