"""Augmentation of batches on their device, with independent random numbers for each image.

The random numbers are a function of seed, epoch and image, so they do not depend on the batch size, the rank or a
resume.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unfreeze.data.augment.boxes import random_erase
from unfreeze.data.augment.color import color_jitter
from unfreeze.data.augment.geometry import centre_crop, random_resized_crop, shift_and_mirror
from unfreeze.data.augment.presets import Augmentation
from unfreeze.data.augment.randaugment import SPACES, apply_ops

# Floats of one chunk. The allocator returns larger blocks to the system, and new ones cost more than the arithmetic.
_CHUNK = 2**21


def augment_batch(images: Tensor, draws: Tensor, *, how: Augmentation, crop_px: int, mirror: bool) -> Tensor:
    """Return augmented images, before mixup or CutMix.

    Args:
        images: Images resized for evaluation, uint8, shape (N, C, H, W), no side below `crop_px`.
        draws: Uniform random numbers, on the host, shape (N, DRAWS).
        how: Augmentation to apply.
        crop_px: Side of the augmented images.
        mirror: Whether images may be mirrored.

    Returns:
        Augmented images, uint8 or float32 in [0, 255], shape (N, C, crop_px, crop_px).
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
