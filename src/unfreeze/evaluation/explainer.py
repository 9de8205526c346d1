"""Thumbnails, features and saliency maps of a model's images, for pictures."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.evaluation.saliency import grad_cam
from unfreeze.models.classifier import Classifier
from unfreeze.models.heads import head_inputs

_BATCH = 64
_THUMBNAIL_PX = 96


class ReadsImages(Protocol):
    """A source of the images of a run, such as `unfreeze.data.store.store.ImageStore`."""

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Return some images, uint8, shape (n, C, H, W)."""


@dataclass(frozen=True, eq=False)
class ImageExplainer:
    """A model and its images, to explain its predictions.

    Args:
        classifier: In eval mode.
        images: The images, by their indices in the source.
        device: The device that the model runs on.
    """

    classifier: Classifier
    images: ReadsImages
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def pixels(self, indices: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return thumbnails of some images: uint8, shape (h, w, 3), at most 96 px on the longer side."""
        return [_thumbnail(image) for image in self.images.read(indices)] if len(indices) else []

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the pooled inputs of the head for some images, float32, shape (n, D)."""
        network = self.classifier.network.to(self.device).eval()
        with torch.no_grad(), head_inputs(self.classifier) as inputs:
            for images in self._batches(indices):
                network(images)
        return torch.cat(inputs).float().cpu().numpy()

    def heat(self, indices: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return Grad-CAM maps for the logits of some classes, in [0, 1], shape (n, h, w), over the whole images.

        None if the network has no layer with spatial positions.
        """
        network = self.classifier.network.to(self.device).eval()
        (images,) = self._batches(indices, len(indices))
        crop = grad_cam(network, images, torch.from_numpy(targets).to(self.device))
        if crop is None:
            return None
        height, width = self.images.read(indices[:1]).shape[-2:]
        return self._on_frame(torch.from_numpy(crop), (height, width))

    def _on_frame(self, heat: Tensor, frame: tuple[int, int]) -> NDArray[np.float32]:
        """Return maps of the network's center crop padded to the whole image."""
        prep = self.classifier.preprocessing
        scales = [prep.resize_px / (side if prep.squash else min(frame)) for side in frame]
        height, width = (round(side * scale) for side, scale in zip(frame, scales, strict=True))
        fine = F.interpolate(heat[:, None], size=(prep.crop_px, prep.crop_px), mode="bilinear", align_corners=False)
        top, left = max(0, (height - prep.crop_px) // 2), max(0, (width - prep.crop_px) // 2)
        whole = torch.zeros(len(heat), 1, max(height, prep.crop_px), max(width, prep.crop_px))
        whole[:, :, top : top + prep.crop_px, left : left + prep.crop_px] = fine
        return whole[:, 0].numpy()

    def _batches(self, indices: NDArray[np.int64], size: int = _BATCH) -> Iterator[Tensor]:
        for start in range(0, len(indices), size):
            images = self.images.read(indices[start : start + size]).to(self.device)
            yield self.classifier.preprocessing(images)


def _thumbnail(image: Tensor) -> NDArray[np.uint8]:
    """Return a small RGB image: the first three of more bands, or grey."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    longest = max(shown.shape[-2:])
    if longest > _THUMBNAIL_PX:
        size = [max(1, round(side * _THUMBNAIL_PX / longest)) for side in shown.shape[-2:]]
        scaled = F.interpolate(shown[None].float(), size=size, mode="bilinear", antialias=True)[0]
        shown = scaled.round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(shown.permute(1, 2, 0).numpy())
