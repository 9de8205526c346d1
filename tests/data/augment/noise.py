"""Images and random numbers for augmentation tests, and conversion from and to Pillow."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.augment.draws import uniform_draws


def smooth_noise(
    count: int, height: int = 40, width: int = 48, channels: int = 3, *, low: int = 0, high: int = 255
) -> Tensor:
    """Return noise that is smooth enough to be resampled, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(low, high + 1, (count, channels, 6, 7), generator=generator).float()
    return F.resize(coarse, [height, width]).round().to(torch.uint8)


def draws_of(count: int, *, seed: int = 0, epoch: int = 0) -> Tensor:
    return uniform_draws(seed=seed, epoch=epoch, indices=torch.arange(count))


def to_pil(image: Tensor) -> Image.Image:
    picture: Image.Image = F.to_pil_image(image)
    return picture


def from_pil(picture: Image.Image) -> Tensor:
    """Return pixels in [0, 255], float32, shape (C, H, W)."""
    pixels: Tensor = F.pil_to_tensor(picture)
    return pixels.float()
