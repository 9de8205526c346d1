"""Colours of whole batches, each image by numbers of its own."""

import torch
from torch import Tensor

from unfreeze.data.augment.draws import Draw, beside, between


def color_jitter(images: Tensor, draws: Tensor, *, strength: float) -> Tensor:
    """Return images with brightness, contrast and saturation each scaled by 1 - strength to 1 + strength.

    Args:
        images: uint8 or float32 in [0, 255], shape (N, C, H, W).
        draws: Uniform numbers, shape (N, DRAWS).
        strength: In [0, 1].

    Returns:
        float32 in [0, 255], the same shape.
    """
    columns = [Draw.BRIGHTNESS, Draw.CONTRAST, Draw.SATURATION]
    return adjust_color(images, between(1 - strength, 1 + strength, draws[:, columns]))


def adjust_color(images: Tensor, factors: Tensor) -> Tensor:
    """Return images with brightness, contrast and saturation scaled, in this order (Haeberli and Voorhies 1994).

    The three are linear in a pixel's channels, so that they are one matrix per image. Only the result is clamped.

    Args:
        images: uint8 or float32 in [0, 255], shape (N, C, H, W).
        factors: Of brightness, contrast and saturation, on the host, shape (N, 3).

    Returns:
        float32 in [0, 255], the same shape.
    """
    pixels = images.float().flatten(2)
    channels = pixels.shape[1]
    brightness, contrast, saturation = beside(factors, images)[..., None, None].unbind(1)
    identity = torch.eye(channels, device=images.device)
    luma = luma_weights(channels, images).expand(channels, -1)
    saturate = torch.lerp(luma, identity, saturation)
    offset = (1 - contrast) * brightness * (luma @ pixels.mean(dim=2, keepdim=True))
    return torch.bmm(saturate * (contrast * brightness), pixels).add_(offset).clamp_(0, 255).view(images.shape)


def luma_weights(channels: int, images: Tensor) -> Tensor:
    """Return the share of each channel in an image's grey, shape (C,): ITU-R BT.601 for three, else equal shares."""
    if channels == 3:
        return beside(torch.tensor([0.299, 0.587, 0.114]), images)
    return torch.full((channels,), 1 / channels, device=images.device)


def grey(images: Tensor) -> Tensor:
    """Return luma, float32, shape (N, 1, H, W), of images, shape (N, C, H, W)."""
    return torch.einsum("nchw,c->nhw", images.float(), luma_weights(images.shape[1], images))[:, None]
