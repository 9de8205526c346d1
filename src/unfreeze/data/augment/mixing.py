"""Mixup and CutMix: each image with its neighbour in the batch, and targets to match."""

from functools import lru_cache

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from unfreeze.data.augment.boxes import box_mask, cut_boxes
from unfreeze.data.augment.draws import Draw, beside, per_image

_QUANTILES = 4096


def mix_batch(
    images: Tensor, draws: Tensor, *, mixup: float, cutmix: float, probability: float
) -> tuple[Tensor, Tensor]:
    """Return images, some mixed with the one before them, and how much of each is its own.

    Args:
        images: uint8 or float32 in [0, 255], shape (N, C, H, W). The first one's neighbour is the last.
        draws: Uniform numbers, on the host, shape (N, DRAWS).
        mixup: Parameter of the Beta distribution of mixup's shares (Zhang et al. 2018); 0 for none.
        cutmix: The same for CutMix (Yun et al. 2019); where both are wanted, each image gets one or the other.
        probability: That an image is mixed.

    Returns:
        Images, float32 in [0, 255], the same shape; shares in [0, 1], float32, shape (N,), on their device.
    """
    height, width = images.shape[-2:]
    mixed = draws[:, Draw.MIX] < probability
    pasted = mixed & (draws[:, Draw.MIX_KIND] < (0.5 if mixup and cutmix else float(bool(cutmix))))
    kept = torch.where(
        pasted, beta_draws(draws[:, Draw.MIX_SHARE], cutmix), beta_draws(draws[:, Draw.MIX_SHARE], mixup)
    )
    boxes = cut_boxes(draws, 1 - kept, height=height, width=width) * pasted[:, None]
    blended = torch.where(mixed & ~pasted, 1 - kept, 0.0)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    shares = 1 - torch.where(pasted, sides / (height * width), blended)
    foreign = box_mask(boxes, images) + per_image(beside(blended, images))
    images = images.float()
    return torch.lerp(images, images.roll(1, 0), foreign), beside(shares, images)


def mix_targets(targets: Tensor, shares: Tensor) -> Tensor:
    """Return what a mixed batch shows.

    Args:
        targets: What its images show unmixed, float, shape (N, C).
        shares: How much of each image is its own, in [0, 1], shape (N,).

    Returns:
        The same shape; rows that summed to one still do.
    """
    return torch.lerp(targets.roll(1, 0), targets, shares[:, None])


def beta_draws(draws: Tensor, alpha: float) -> Tensor:
    """Return uniform draws as draws of Beta(alpha, alpha), from a table of its quantiles.

    Args:
        draws: In [0, 1), on the host, shape (N,).
        alpha: 0 or more; 0 gives ones.

    Returns:
        float32 in [0, 1], shape (N,).
    """
    if not alpha:
        return torch.ones_like(draws)
    positions = draws * _QUANTILES
    low = positions.long()
    table = _beta_quantiles(alpha)
    return torch.lerp(table[low], table[low + 1], positions - low)


@lru_cache
def _beta_quantiles(alpha: float) -> Tensor:
    return torch.from_numpy(betaincinv(alpha, alpha, np.linspace(0, 1, _QUANTILES + 1))).float()
