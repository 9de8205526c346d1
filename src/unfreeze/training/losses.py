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


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the focal loss (Lin et al. 2017, eq. 4, with a softmax): -(1 - p)^gamma log p of what an image shows.

    With gamma 0 it is `weighted_cross_entropy`; targets that are shares of classes count each class by its share.

    Args:
        logits: Shape (N, C).
        targets: Labels, int64, shape (N,), or shares of classes, float, shape (N, C).
        gamma: How much less counts what is told right already, >= 0.
        class_weights: What an image of each class counts, shape (C,); None for all alike.
        label_smoothing: Share of the target spread over all classes, in [0, 1).

    Returns:
        Scalar in nats per image.
    """
    classes = logits.shape[1]
    shares = targets if targets.is_floating_point() else F.one_hot(targets, classes).to(logits.dtype)
    counted = shares if class_weights is None else shares * class_weights
    smooth = shares * (1 - label_smoothing) + label_smoothing / classes
    smooth = smooth if class_weights is None else smooth * class_weights
    log_p = logits.log_softmax(dim=1)
    # The derivative of x ** gamma at 0 is not finite for gamma < 1, where p has been rounded to 1.
    missed = -torch.expm1(log_p.clamp(max=-torch.finfo(log_p.dtype).eps))
    return -(smooth * missed**gamma * log_p).sum() / counted.sum()


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
