"""Mixup and CutMix of each image with its neighbour in the batch, and of their targets."""

from functools import lru_cache

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from unfreeze.data.augment.boxes import box_mask, cut_boxes
from unfreeze.data.augment.draws import Draw, on_device_of, per_image

_QUANTILES = 4096


def mix_batch(
    images: Tensor, draws: Tensor, *, mixup: float, cutmix: float, probability: float
) -> tuple[Tensor, Tensor]:
    """Return images, some of them mixed with the previous image, and the weight of each original image.

    Args:
        images: Images, uint8 or float32 in [0, 255], shape (N, C, H, W). The first image is mixed with the last.
        draws: Uniform random numbers, on the host, shape (N, DRAWS).
        mixup: Parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 for no mixup.
        cutmix: Parameter of the Beta distribution of CutMix (Yun et al. 2019); 0 for no CutMix. With both, each image
            is mixed by one of them.
        probability: Probability that an image is mixed.

    Returns:
        Images, float32 in [0, 255], of the same shape, and weights in [0, 1], float32, shape (N,), on their device.
    """
    height, width = images.shape[-2:]
    mixed = draws[:, Draw.MIX] < probability
    pasted = mixed & (draws[:, Draw.MIX_KIND] < (0.5 if mixup and cutmix else float(bool(cutmix))))
    own = torch.where(pasted, beta_draws(draws[:, Draw.MIX_SHARE], cutmix), beta_draws(draws[:, Draw.MIX_SHARE], mixup))
    boxes = cut_boxes(draws, 1 - own, height=height, width=width) * pasted[:, None]
    blended = torch.where(mixed & ~pasted, 1 - own, 0.0)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    shares = 1 - torch.where(pasted, sides / (height * width), blended)
    foreign = box_mask(boxes, images) + per_image(on_device_of(blended, images))
    images = images.float()
    return torch.lerp(images, images.roll(1, 0), foreign), on_device_of(shares, images)


def mix_targets(targets: Tensor, shares: Tensor) -> Tensor:
    """Return the targets of a mixed batch.

    Args:
        targets: Targets of the unmixed images, float, shape (N, C).
        shares: Weights of the original images, in [0, 1], shape (N,).

    Returns:
        Mixed targets of the same shape; the sums of rows stay one.
    """
    return torch.lerp(targets.roll(1, 0), targets, shares[:, None])


def beta_draws(draws: Tensor, alpha: float) -> Tensor:
    """Return Beta(alpha, alpha) random numbers from uniform ones, by a table of quantiles.

    Args:
        draws: Uniform random numbers in [0, 1), on the host, shape (N,).
        alpha: Parameter of the distribution, >= 0; 0 returns ones.

    Returns:
        Random numbers in [0, 1], float32, shape (N,).
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
