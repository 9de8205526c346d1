"""Search for exact and near duplicates."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from unfreeze.data.audit.duplicates import build_thumbnails, exact_pairs, near_pairs, perceptual_hashes
from unfreeze.data.store.pixels import ResidentPixels

SIDE = 96


def scenes(count: int, *, seed: int = 0) -> list[Image.Image]:
    """Return images that look like nothing else: a few coarse colours, smoothly spread."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for pixels in coarse]


def pixels_of(images: list[Image.Image]) -> ResidentPixels:
    return ResidentPixels(torch.from_numpy(np.stack([np.asarray(image) for image in images])))


def found(images: list[Image.Image]) -> set[tuple[int, int]]:
    thumbnails = build_thumbnails(pixels_of(images), np.arange(len(images)))
    return {(int(first), int(second)) for first, second in near_pairs(thumbnails)}


def test_exact_pairs_lead_to_the_first_of_each_kind() -> None:
    contents = np.array([5, 7, 5, 9, 5, 7])
    everything = np.arange(6)
    assert exact_pairs(contents, everything, everything).tolist() == [[0, 2], [0, 4], [1, 5]]
    assert exact_pairs(contents, np.array([1, 2, 3]), np.array([0, 4, 5])).tolist() == [[2, 0], [2, 4], [1, 5]]
    assert exact_pairs(contents, everything[:0], everything).tolist() == []
    assert exact_pairs(contents, everything, everything[:0]).tolist() == []


def test_pairs_are_found_however_far_apart_and_however_many_look_alike() -> None:
    first, last = scenes(2)
    crowd = [Image.fromarray(np.asarray(first) // 2 + np.asarray(last) // 2)] * 700
    images = [first, *crowd, last, first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    thumbnails = build_thumbnails(pixels_of(images), np.arange(len(images)))
    pairs = {tuple(pair) for pair in near_pairs(thumbnails).tolist()}
    assert (0, 702) in pairs
    assert (1, 700) in pairs
    assert len(pairs) == 1 + 700 * 699 // 2


def test_different_scenes_are_no_pairs() -> None:
    assert found(scenes(400)) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((40, 40)).resize((SIDE, SIDE)),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(1.2),
        lambda image: ImageEnhance.Color(image).enhance(0.0),
        lambda image: Image.fromarray(
            np.clip(np.asarray(image) + np.random.default_rng(1).normal(0, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        ),
    ],
    ids=["scaled", "mirrored", "darker", "contrast", "grey", "noisy"],
)
def test_what_a_person_would_call_the_same_is_a_pair(change) -> None:  # type: ignore[no-untyped-def]
    originals = scenes(100)
    copies = [change(image) for image in originals[:40]]
    pairs = found([*originals, *copies])
    assert pairs <= {(index, 100 + index) for index in range(40)}
    assert len(pairs) >= 36


def test_a_flat_image_is_like_no_other() -> None:
    flat = [Image.new("RGB", (SIDE, SIDE), (value, value, value)) for value in (0, 10, 200, 255)]
    assert found([*flat, *scenes(10)]) == set()


def test_pairs_are_told_by_their_place_in_the_source() -> None:
    images = scenes(12)
    images[9] = images[4]
    thumbnails = build_thumbnails(pixels_of(images), np.array([2, 4, 9, 11]))
    assert near_pairs(thumbnails).tolist() == [[4, 9]]


def test_a_hash_is_of_the_lowest_frequencies() -> None:
    grey = np.stack([np.asarray(image.convert("L").resize((32, 32)), dtype=np.float32) for image in scenes(3)])
    hashes = perceptual_hashes(grey)
    assert hashes.dtype == np.uint64
    assert len(set(hashes.tolist())) == 3
    assert np.array_equal(perceptual_hashes(grey * 0.5 + 20), hashes)
    # Half of the bits lie above the median, so that a hash says as much as it can.
    assert np.bitwise_count(hashes).tolist() == pytest.approx([32, 32, 32], abs=1)
