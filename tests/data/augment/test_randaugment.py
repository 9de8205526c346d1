"""RandAugment and TrivialAugment compared with torchvision's functions on single Pillow images."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandAugment, TrivialAugmentWide
from torchvision.transforms.v2 import functional as F

from tests.data.augment.noise import draws_of, from_pil, smooth_noise, to_pil
from unfreeze.data.augment.boxes import FILL
from unfreeze.data.augment.draws import Draw
from unfreeze.data.augment.randaugment import OPS, SPACES, apply_ops, as_uint8

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BINS = 31


def chosen(draws: Tensor, op: Draw, sign: Draw, name: str, signs: Tensor) -> Tensor:
    """Return draws of which one operation follows, with these signs."""
    draws = draws.clone()
    draws[:, op] = (list(OPS).index(name) + 0.5) / len(OPS)
    draws[:, sign] = torch.where(signs < 0, 0.2, 0.8)
    return draws


def by_torchvision(picture: Image.Image, name: str, magnitude: float, *, fill: int = FILL) -> Image.Image:
    """Apply an operation as torchvision's own RandAugment does."""
    options: dict[str, Any] = {"interpolation": F.InterpolationMode.BILINEAR, "fill": fill}
    affine: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **options}
    degrees = math.degrees(math.atan(magnitude))
    match name:
        case "Identity":
            result = picture
        case "ShearX":
            result = F.affine(picture, **{**affine, "shear": [degrees, 0.0], "center": [0, 0]})
        case "ShearY":
            result = F.affine(picture, **{**affine, "shear": [0.0, degrees], "center": [0, 0]})
        case "TranslateX":
            result = F.affine(picture, **{**affine, "translate": [int(magnitude), 0]})
        case "TranslateY":
            result = F.affine(picture, **{**affine, "translate": [0, int(magnitude)]})
        case "Rotate":
            result = F.rotate(picture, magnitude, **options)
        case "Brightness":
            result = F.adjust_brightness(picture, 1 + magnitude)
        case "Color":
            result = F.adjust_saturation(picture, 1 + magnitude)
        case "Contrast":
            result = F.adjust_contrast(picture, 1 + magnitude)
        case "Sharpness":
            result = F.adjust_sharpness(picture, 1 + magnitude)
        case "Posterize":
            result = F.posterize(picture, int(magnitude))
        case "Solarize":
            result = F.solarize(picture, 255 * magnitude)
        case "AutoContrast":
            result = F.autocontrast(picture)
        case "Equalize":
            result = F.equalize(picture)
    return result


def magnitude_of(space: type, name: str, strength_bin: int, sign: int, height: int, width: int) -> float:
    """Look a magnitude up in torchvision's own table, without its float32 error: 16 pixels stand there as 15.999999."""
    magnitudes, signed = space._AUGMENTATION_SPACE[name]
    values = magnitudes(BINS, height, width)
    return 0.0 if values is None else round(float(values[strength_bin]), 5) * (sign if signed else 1)


def off_the_rim(picture: Image.Image, name: str, magnitude: float) -> Tensor:
    """Return the pixels that have nothing but image, or nothing but fill, within two pixels."""
    white = from_pil(by_torchvision(Image.new("L", picture.size, 255), name, magnitude, fill=0)) > 0
    around = torch.nn.functional.pad(white, [2, 2, 2, 2]).unfold(1, 5, 1).unfold(2, 5, 1).flatten(3)
    return around.all(dim=3) | ~around.any(dim=3)


def assert_same(result: Tensor, image: Tensor, name: str, magnitude: float) -> None:
    """Compare within a level, but along the rim of what was moved, where Pillow cuts and grid_sample blends."""
    expected = by_torchvision(to_pil(image), name, magnitude)
    difference = (result.float() - from_pil(expected)).abs()
    if name in GEOMETRIC:
        compared = off_the_rim(to_pil(image), name, magnitude)
        assert compared.float().mean() > 0.6
        difference = difference[compared.expand_as(difference)]
    if name == "Solarize":
        # A pixel on the threshold may go either way.
        difference = difference[(image.float() - 255 * magnitude).abs() > 0.01]
    assert difference.max() <= 1


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_of_randaugment_is_torchvisions(name: str, channels: int) -> None:
    images = smooth_noise(6, 44, 60, channels)
    signs = torch.tensor([1, -1, 1, -1, 1, -1])
    draws = chosen(draws_of(6), Draw.FIRST_OP, Draw.FIRST_SIGN, name, signs)
    draws = chosen(draws, Draw.SECOND_OP, Draw.SECOND_SIGN, "Identity", signs)
    results = apply_ops(images, draws, space=SPACES["randaugment"])
    assert results.dtype == torch.uint8
    for image, result, sign in zip(images, results, signs.tolist(), strict=True):
        assert_same(result, image, name, magnitude_of(RandAugment, name, 9, sign, 44, 60))


@pytest.mark.parametrize("name", OPS)
def test_an_operation_of_trivialaugment_is_torchvisions_at_each_images_own_strength(name: str) -> None:
    images = smooth_noise(31, 120, 150)
    signs = torch.where(torch.arange(31) % 2 == 0, 1, -1)
    draws = chosen(draws_of(31), Draw.FIRST_OP, Draw.FIRST_SIGN, name, signs)
    draws[:, Draw.FIRST_STRENGTH] = (torch.arange(31) + 0.5) / 31
    results = apply_ops(images, draws, space=SPACES["trivial"])
    for strength_bin, (image, result, sign) in enumerate(zip(images, results, signs.tolist(), strict=True)):
        magnitude = magnitude_of(TrivialAugmentWide, name, strength_bin, sign, 120, 150)
        assert_same(result, image, name, magnitude)


def test_the_operations_are_torchvisions() -> None:
    assert set(OPS) == set(RandAugment._AUGMENTATION_SPACE) == set(TrivialAugmentWide._AUGMENTATION_SPACE)


def test_two_operations_follow_each_other() -> None:
    images = smooth_noise(4)
    signs = torch.ones(4)
    draws = chosen(draws_of(4), Draw.FIRST_OP, Draw.FIRST_SIGN, "Solarize", signs)
    draws = chosen(draws, Draw.SECOND_OP, Draw.SECOND_SIGN, "Posterize", signs)
    for image, result in zip(images, apply_ops(images, draws, space=SPACES["randaugment"]), strict=True):
        expected = F.posterize(F.solarize(image, 255 * 0.7), 7)
        assert torch.equal(result, expected)


@pytest.mark.parametrize("space", SPACES)
def test_every_operation_and_sign_is_drawn(space: str) -> None:
    images = smooth_noise(1, 16, 16).expand(4000, -1, -1, -1)
    draws = draws_of(4000)
    draws[:, Draw.FIRST_STRENGTH] = 0.4
    outcomes = apply_ops(images, draws, space=replace(SPACES[space], rounds=SPACES[space].rounds[:1]))
    # Nine operations have a sign, the other five have none.
    assert len(outcomes.flatten(1).unique(dim=0)) == 9 * 2 + 5


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_image_comes_out_the_same_in_any_company(space: str, channels: int) -> None:
    images, draws = smooth_noise(60, 20, 24, channels), draws_of(60)
    whole = apply_ops(images, draws, space=SPACES[space])
    assert whole.shape == images.shape
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(apply_ops(images[order], draws[order], space=SPACES[space]), whole[order])
    for position in (0, 31, 59):
        alone = slice(position, position + 1)
        assert torch.equal(apply_ops(images[alone], draws[alone], space=SPACES[space]), whole[alone])


@pytest.mark.parametrize("space", SPACES)
def test_no_images_and_tiny_images_will_do(space: str) -> None:
    assert apply_ops(torch.zeros(0, 3, 8, 8), draws_of(0), space=SPACES[space]).shape == (0, 3, 8, 8)
    tiny = torch.full((200, 3, 1, 1), 90, dtype=torch.uint8)
    assert apply_ops(tiny, draws_of(200), space=SPACES[space]).shape == tiny.shape


def test_floats_are_rounded_first() -> None:
    assert as_uint8(torch.tensor([0.4, 0.6, 254.6, 255.0])).tolist() == [0, 1, 255, 255]
    images = smooth_noise(30)
    expected = apply_ops(images, draws_of(30), space=SPACES["randaugment"])
    assert torch.equal(apply_ops(images.float() + 0.2, draws_of(30), space=SPACES["randaugment"]), expected)
