"""RandAugment and TrivialAugment of batches, with operations and magnitudes drawn per image.

Images with the same operation are processed together, each with its own magnitude.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.augment.boxes import FILL
from unfreeze.data.augment.color import grey
from unfreeze.data.augment.draws import Draw, on_device_of, per_image
from unfreeze.data.augment.geometry import warp

_BINS = 31


@dataclass(frozen=True)
class Space:
    """Number of operations, and their magnitudes at strength one.

    Args:
        rounds: Columns of operation, strength and sign for each successive operation.
        strength: Strength of all operations, in [0, 1]; None to draw one of 31 strengths per image.
        shear: Shear in pixels per pixel.
        translate_share: Translation as a share of the side.
        translate_px: Translation in pixels, added to that share.
        degrees: Rotation in degrees.
        enhance: Deviation of the factors of brightness, colour, contrast and sharpness from one.
        posterize_bits: Number of bits that posterizing removes.
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
    """Return images after their randomly drawn operations.

    Args:
        images: Images, uint8 or float32 in [0, 255], shape (N, C, H, W).
        draws: Uniform random numbers, on the host, shape (N, DRAWS).
        space: Number of operations, and their magnitudes.

    Returns:
        Images, uint8, of the same shape.
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
    """Sort images by operation, apply each operation to its group, and restore the order."""
    order = chosen.argsort(stable=True)
    counts = chosen.bincount(minlength=len(OPS)).tolist()
    sorted_images = images.index_select(0, on_device_of(order, images))
    groups = zip(OPS.values(), torch.split(sorted_images, counts), torch.split(strengths[order], counts), strict=True)
    applied = [op(group, strength, space) for op, group, strength in groups if len(group)]
    return torch.cat(applied).index_select(0, on_device_of(order.argsort(), images)) if applied else images


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
    """Interpolate or extrapolate from a degenerate image to the image (Haeberli and Voorhies 1994)."""
    factors = per_image(on_device_of(1 + strengths * space.enhance, images))
    start = degenerate(images).float().expand(images.shape)
    return torch.lerp(start, images.float(), factors).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, strengths: Tensor, space: Space) -> Tensor:
    dropped = (strengths.abs() * space.posterize_bits).round().long()
    return images & per_image(on_device_of((256 - 2**dropped).to(torch.uint8), images))


def _solarize(images: Tensor, strengths: Tensor, _space: Space) -> Tensor:
    thresholds = per_image(on_device_of(255 * (1 - strengths.abs()), images))
    return torch.where(images >= thresholds, 255 - images, images)


def _adjust(images: Tensor, _strengths: Tensor, _space: Space, *, adjust: Callable[[Tensor], Tensor]) -> Tensor:
    return _by_channel(images, adjust)


def _identities(strengths: Tensor) -> Tensor:
    return torch.eye(2, 3).repeat(len(strengths), 1, 1)


def _warp_on_grey(images: Tensor, matrices: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    # grid_sample can fill only with zeros.
    warped = warp(images.float().sub_(FILL), matrices, size_px=(height, width), padding="zeros")
    return warped.add_(FILL).round_().to(torch.uint8)


def _black(images: Tensor) -> Tensor:
    return torch.zeros_like(images)


def _mean_grey(images: Tensor) -> Tensor:
    return grey(images).floor().mean(dim=(2, 3), keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    return _by_channel(images, partial(F.adjust_sharpness, sharpness_factor=0.0))


def _by_channel(images: Tensor, adjust: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of images with one channel to each channel."""
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
