"""Colour augmentation of batches with random numbers per image."""

import torch
from torch import Tensor

from unfreeze.data.augment.draws import Draw, between, on_device_of


def color_jitter(images: Tensor, draws: Tensor, *, strength: float) -> Tensor:
    """Return images with brightness, contrast and saturation each scaled by 1 - strength to 1 + strength.

    Args:
        images: Images, uint8 or float32 in [0, 255], shape (N, C, H, W).
        draws: Uniform random numbers, shape (N, DRAWS).
        strength: Largest deviation of the factors from one, in [0, 1].

    Returns:
        Images, float32 in [0, 255], of the same shape.
    """
    columns = [Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION]
    return adjust_color(images, between(1 - strength, 1 + strength, draws[:, columns]))


def adjust_color(images: Tensor, factors: Tensor) -> Tensor:
    """Return images with brightness, contrast and saturation scaled, in this order (Haeberli and Voorhies 1994).

    All three are linear in the channels of a pixel, so they are one matrix per image. Only the result is clamped.

    Args:
        images: Images, uint8 or float32 in [0, 255], shape (N, C, H, W).
        factors: Factors of brightness, contrast and saturation, on the host, shape (N, 3).

    Returns:
        Images, float32 in [0, 255], of the same shape.
    """
    pixels = images.float().flatten(2)
    channels = pixels.shape[1]
    brightness, contrast, saturation = on_device_of(factors, images)[..., None, None].unbind(1)
    identity = torch.eye(channels, device=images.device)
    luma = luma_weights(channels, images).expand(channels, -1)
    saturate = torch.lerp(luma, identity, saturation)
    offset = (1 - contrast) * brightness * (luma @ pixels.mean(dim=2, keepdim=True))
    return torch.bmm(saturate * (contrast * brightness), pixels).add_(offset).clamp_(0, 255).view(images.shape)


def luma_weights(channels: int, images: Tensor) -> Tensor:
    """Return the weight of each channel in the luma, shape (C,): ITU-R BT.601 for three, else equal weights."""
    if channels == 3:
        return on_device_of(torch.tensor([0.299, 0.587, 0.114]), images)
    return torch.full((channels,), 1 / channels, device=images.device)


def grey(images: Tensor) -> Tensor:
    """Return the luma of images, shape (N, C, H, W), as float32, shape (N, 1, H, W)."""
    return torch.einsum("nchw,c->nhw", images.float(), luma_weights(images.shape[1], images))[:, None]
