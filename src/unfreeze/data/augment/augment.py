"""Augmentation of whole batches on their device, drawn for each image alone.

Every draw is a function of seed, epoch and image, so it is the same however batches are cut, on any rank, and
after a resume.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unfreeze.data.augment.boxes import random_erase
from unfreeze.data.augment.color import color_jitter
from unfreeze.data.augment.geometry import centre_crop, random_resized_crop, shift_and_mirror
from unfreeze.data.augment.presets import Augmentation
from unfreeze.data.augment.randaugment import SPACES, apply_ops

# Floats of one chunk. The allocator gives larger blocks back to the system, and new ones cost more than the arithmetic.
_CHUNK = 2**21


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
