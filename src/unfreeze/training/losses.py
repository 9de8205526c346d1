"""Losses of a classifier in training."""

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return torch's cross entropy, weighted alike for labels and for targets that are mixed.

    torch divides by the weights of the labels, but by the number of images where targets are shares of classes. Here
    both are divided by the weights of what the images show, so that a batch of unmixed shares costs what its labels do.

    Args:
        logits: Shape (N, C).
        targets: Labels, int64, shape (N,), or shares of classes, float, shape (N, C).
        class_weights: What an image of each class counts, shape (C,); None for all alike.
        label_smoothing: Share of the target spread over all classes, in [0, 1).

    Returns:
        Scalar in nats per image.
    """
    if class_weights is None or not targets.is_floating_point():
        return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing)
    loss = F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing, reduction="sum")
    return loss / (targets * class_weights).sum()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return the weights that let each class count the same: n / (C · n_c) (King and Zeng 2001).

    Args:
        labels: Of the training images, int64, shape (n,).
        num_classes: C.

    Returns:
        float32, shape (C,); 0 for a class without images.
    """
    counts = labels.bincount(minlength=num_classes)
    return torch.where(counts > 0, len(labels) / (num_classes * counts.clamp(min=1)), 0.0).float()
