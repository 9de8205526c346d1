"""RandAugment and TrivialAugment of whole batches, operations and magnitudes drawn for each image.

The images that drew the same operation go through it together, each with a magnitude of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.augment.boxes import FILL
from unfreeze.data.augment.color import grey
from unfreeze.data.augment.draws import Draw, beside, per_image
from unfreeze.data.augment.geometry import warp

_BINS = 31


@dataclass(frozen=True)
class Space:
    """How far operations go at strength one, and how they are drawn.

    Args:
        rounds: Columns that choose operation, strength and sign, for each operation in a row.
        strength: Of all, in [0, 1]; None draws one of 31 for each image.
        shear: Pixels per pixel.
        translate_share: Of the side.
        translate_px: Pixels beside that share.
        degrees: Of rotation.
        enhance: By how much factors of brightness, colour, contrast and sharpness leave one.
        posterize_bits: Bits that go.
    """

    rounds: tuple[tuple[Draw, Draw, Draw], ...]
    strength: float | None
    shear: float
    translate_share: float
    translate_px: float
    degrees: float
    enhance: float
    posterize_bits: int


_FIRST = (Draw.FIRST_OP, Draw.FIRST_STRENGTH, Draw.FIRST_SIGN)
_SECOND = (Draw.SECOND_OP, Draw.SECOND_STRENGTH, Draw.SECOND_SIGN)

SPACES = {
    # Cubuk et al. 2020, two operations at magnitude 9 of 30, as torchvision's RandAugment.
    "randaugment": Space(
        rounds=(_FIRST, _SECOND),
        strength=9 / (_BINS - 1),
        shear=0.3,
        translate_share=150 / 331,
        translate_px=0,
        degrees=30,
        enhance=0.9,
        posterize_bits=4,
    ),
    # Müller and Hutter 2021, one operation of any strength in the wide space, as torchvision's TrivialAugmentWide.
    "trivial": Space(
        rounds=(_FIRST,),
        strength=None,
        shear=0.99,
        translate_share=0,
        translate_px=32,
        degrees=135,
        enhance=0.99,
        posterize_bits=6,
    ),
}


def apply_ops(images: Tensor, draws: Tensor, *, space: Space) -> Tensor:
    """Return images after the operations that they drew.

    Args:
        images: uint8 or float32 in [0, 255], shape (N, C, H, W).
        draws: Uniform numbers, on the host, shape (N, DRAWS).
        space: Where from.

    Returns:
        uint8, the same shape.
    """
    images = as_uint8(images)
    for op, strength, sign in space.rounds:
        chosen = (draws[:, op] * len(OPS)).long()
        strengths = _strengths(draws[:, strength], space.strength)
        signed = torch.where(draws[:, sign] < 0.5, -strengths, strengths)
        images = _apply_grouped(images, chosen, signed, space)
    return images


def as_uint8(images: Tensor) -> Tensor:
    """Return images in [0, 255] rounded to uint8."""
    return images if images.dtype == torch.uint8 else images.round().to(torch.uint8)


def _strengths(draws: Tensor, strength: float | None) -> Tensor:
    return (draws * _BINS).floor() / (_BINS - 1) if strength is None else torch.full_like(draws, strength)


def _apply_grouped(images: Tensor, chosen: Tensor, strengths: Tensor, space: Space) -> Tensor:
    """Sort images by operation, apply each to its group, and put them back in order."""
    order = chosen.argsort(stable=True)
    counts = chosen.bincount(minlength=len(OPS)).tolist()
    sorted_images = images.index_select(0, beside(order, images))
    groups = zip(OPS.values(), torch.split(sorted_images, counts), torch.split(strengths[order], counts), strict=True)
    applied = [op(group, strength, space) for op, group, strength in groups if len(group)]
    return torch.cat(applied).index_select(0, beside(order.argsort(), images)) if applied else images


# Each operation takes uint8 images, shape (N, C, H, W), and signed strengths in [-1, 1], on the host, shape (N,).


def _identity(images: Tensor, _strengths: Tensor, _space: Space) -> Tensor:
    return images


def _shear(images: Tensor, strengths: Tensor, space: Space, *, axis: int) -> Tensor:
    matrices = _identities(strengths)
    matrices[:, axis, 1 - axis] = strengths * space.shear
    return _warp_on_grey(images, matrices)


def _translate(images: Tensor, strengths: Tensor, space: Space, *, axis: int) -> Tensor:
    matrices = _identities(strengths)
    most = space.translate_share * images.shape[-1 - axis] + space.translate_px
    matrices[:, axis, 2] = -(strengths * most).trunc()
    return _warp_on_grey(images, matrices)


def _rotate(images: Tensor, strengths: Tensor, space: Space) -> Tensor:
    angles = torch.deg2rad(strengths * space.degrees)
    centre = torch.tensor([images.shape[-1] / 2, images.shape[-2] / 2])
    rows = [torch.stack([angles.cos(), -angles.sin()], dim=1), torch.stack([angles.sin(), angles.cos()], dim=1)]
    turns = torch.stack(rows, dim=1)
    return _warp_on_grey(images, torch.cat([turns, (centre - turns @ centre)[..., None]], dim=2))


def _enhance(images: Tensor, strengths: Tensor, space: Space, *, degenerate: Callable[[Tensor], Tensor]) -> Tensor:
    """Go from an image that lacks a property towards the image, or beyond (Haeberli and Voorhies 1994)."""
    factors = per_image(beside(1 + strengths * space.enhance, images))
    lacking = degenerate(images).float().expand(images.shape)
    return torch.lerp(lacking, images.float(), factors).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, strengths: Tensor, space: Space) -> Tensor:
    dropped = (strengths.abs() * space.posterize_bits).round().long()
    return images & per_image(beside((256 - 2**dropped).to(torch.uint8), images))


def _solarize(images: Tensor, strengths: Tensor, _space: Space) -> Tensor:
    thresholds = per_image(beside(255 * (1 - strengths.abs()), images))
    return torch.where(images >= thresholds, 255 - images, images)


def _adjust(images: Tensor, _strengths: Tensor, _space: Space, *, adjust: Callable[[Tensor], Tensor]) -> Tensor:
    return _by_channel(images, adjust)


def _identities(strengths: Tensor) -> Tensor:
    return torch.eye(2, 3).repeat(len(strengths), 1, 1)


def _warp_on_grey(images: Tensor, matrices: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    # grid_sample knows no other colour beyond the edges than zero.
    warped = warp(images.float().sub_(FILL), matrices, size_px=(height, width), padding="zeros")
    return warped.add_(FILL).round_().to(torch.uint8)


def _black(images: Tensor) -> Tensor:
    return torch.zeros_like(images)


def _mean_grey(images: Tensor) -> Tensor:
    return grey(images).floor().mean(dim=(2, 3), keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    return _by_channel(images, partial(F.adjust_sharpness, sharpness_factor=0.0))


def _by_channel(images: Tensor, adjust: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply what treats each channel alone, and is choosy about their number."""
    return adjust(images.flatten(0, 1)[:, None]).view(images.shape)


Op = Callable[[Tensor, Tensor, Space], Tensor]

OPS: dict[str, Op] = {
    "Identity": _identity,
    "ShearX": partial(_shear, axis=0),
    "ShearY": partial(_shear, axis=1),
    "TranslateX": partial(_translate, axis=0),
    "TranslateY": partial(_translate, axis=1),
    "Rotate": _rotate,
    "Brightness": partial(_enhance, degenerate=_black),
    "Color": partial(_enhance, degenerate=grey),
    "Contrast": partial(_enhance, degenerate=_mean_grey),
    "Sharpness": partial(_enhance, degenerate=_smooth),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": partial(_adjust, adjust=F.autocontrast),
    "Equalize": partial(_adjust, adjust=F.equalize),
}
