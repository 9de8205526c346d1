"""Augmentation of whole batches on their device, drawn for each image alone.

Every draw is a function of seed, epoch and image, so it is the same however batches are cut, on any rank, and
after a resume.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from unfreeze.data.augment.boxes import random_erase
from unfreeze.data.augment.color import color_jitter
from unfreeze.data.augment.geometry import centre_crop, random_resized_crop, shift_and_mirror
from unfreeze.data.augment.randaugment import SPACES, OpsName, apply_ops

AugmentName = Literal["none", "light", "standard", "strong"]

# Floats of one chunk. The allocator gives larger blocks back to the system, and new ones cost more than the arithmetic.
_CHUNK = 2**21


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each training image.

    Args:
        crop: The "centre" as in evaluation, a "shifted" crop at full scale, or a "resized" box.
        min_area: Smallest share of the area that a resized box has, in (0, 1].
        degrees: Largest rotation of a resized box to either side.
        jitter: By how much factors of brightness, contrast and saturation leave one, in [0, 1].
        ops: "randaugment" (Cubuk et al. 2020), "trivial" (Müller and Hutter 2021), or "none".
        erase: Probability that a box is greyed (Zhong et al. 2020).
        mixup: Parameter of the Beta distribution (Zhang et al. 2018); 0 for none.
        cutmix: Parameter of the Beta distribution (Yun et al. 2019); 0 for none.
        mix: Probability that an image is mixed at all, where `mixup` or `cutmix` is not 0.
    """

    crop: Literal["centre", "shifted", "resized"] = "centre"
    min_area: float = 1.0
    degrees: float = 0.0
    jitter: float = 0.0
    ops: OpsName = "none"
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 1.0

    @property
    def is_random(self) -> bool:
        """Whether an image is not the same in each epoch, mixing left aside."""
        return self.crop != "centre" or self.jitter > 0 or self.ops != "none" or self.erase > 0

    @property
    def is_mixing(self) -> bool:
        """Whether targets are mixed too."""
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)


PRESETS: dict[AugmentName, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(crop="shifted"),
    "standard": Augmentation(crop="resized", min_area=0.35, degrees=10, jitter=0.2),
    "strong": Augmentation(
        crop="resized", min_area=0.15, degrees=15, ops="randaugment", erase=0.25, mixup=0.2, cutmix=1.0, mix=0.5
    ),
}


def augmentation(name: AugmentName, **changes: Any) -> Augmentation:
    """Return a preset with some of its values changed; None leaves one as it is."""
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def augment_batch(images: Tensor, draws: Tensor, *, how: Augmentation, crop_px: int, mirror: bool) -> Tensor:
    """Return augmented images, not yet mixed.

    Args:
        images: Resized for evaluation, uint8, shape (N, C, H, W), no side below `crop_px`.
        draws: Uniform numbers, on the host, shape (N, DRAWS).
        how: What is done to them.
        crop_px: Side of what comes out.
        mirror: Whether images may be mirrored.

    Returns:
        uint8 or float32 in [0, 255], shape (N, C, crop_px, crop_px).
    """

    def augment(images: Tensor, draws: Tensor) -> Tensor:
        images = _crop(images, draws, how=how, crop_px=crop_px, mirror=mirror)
        if how.jitter:
            images = color_jitter(images, draws, strength=how.jitter)
        if how.ops != "none":
            images = apply_ops(images, draws, space=SPACES[how.ops])
        return random_erase(images, draws, probability=how.erase) if how.erase else images

    return _in_chunks(augment, images, draws)


def _crop(images: Tensor, draws: Tensor, *, how: Augmentation, crop_px: int, mirror: bool) -> Tensor:
    match how.crop:
        case "centre":
            return centre_crop(images, crop_px=crop_px)
        case "shifted":
            return shift_and_mirror(images, draws, crop_px=crop_px, mirror=mirror)
        case "resized":
            return random_resized_crop(
                images, draws, crop_px=crop_px, min_area=how.min_area, degrees=how.degrees, mirror=mirror
            )


def _in_chunks(augment: Callable[[Tensor, Tensor], Tensor], images: Tensor, draws: Tensor) -> Tensor:
    if images.device.type != "cpu":
        return augment(images, draws)
    count = max(1, _CHUNK // images[:1].numel()) if len(images) else 1
    return torch.cat(
        [augment(*parts) for parts in zip(torch.split(images, count), torch.split(draws, count), strict=True)]
    )
