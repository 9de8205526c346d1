"""Losses of a classifier in training."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


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


def multilabel_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 0.0,
    positive_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the binary cross entropy or the focal loss (Lin et al. 2017, eq. 4) of labels that may occur together.

    Args:
        logits: Shape (N, L).
        targets: How far an image has each label, float in [0, 1], shape (N, L).
        gamma: How much less counts what is told right already, >= 0; 0 is the cross entropy.
        positive_weights: What an image that has a label counts beside one that has not, shape (L,); None for the same.
        label_smoothing: Share of the target that lies half-way between yes and no, in [0, 1).

    Returns:
        Scalar in nats per image and label.
    """
    targets = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    if not gamma:
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive_weights)
    losses: Tensor = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma)
    if positive_weights is not None:
        losses = losses * (1 + targets * (positive_weights - 1))
    return losses.mean()


def distillation_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Return the softened KL divergence from teacher to student (Hinton et al. 2015): T^2 KL(teacher || student).

    Both are softened by the temperature T; T^2 keeps the gradient's size the same for any.

    Args:
        logits: The student's, shape (N, C).
        teacher_logits: Shape (N, C).
        temperature: T, > 0.

    Returns:
        Scalar in nats per image.
    """
    student = (logits / temperature).log_softmax(dim=1)
    teacher = (teacher_logits.to(logits.dtype) / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def similarity_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return how differently a student and its teacher see which images of a batch are alike (Tung and Mori 2019).

    Their features may have different widths. The squared differences between the rows of the two matrices of
    similarities, each row of length one (eq. 1 to 4), are averaged over the rows: the paper divides by N^2, which lets
    the loss vanish with the batch.

    Args:
        features: The student's, shape (N, D).
        teacher_features: Shape (N, E).

    Returns:
        Scalar in [0, 4].
    """
    student, teacher = (F.normalize(each @ each.T, dim=1) for each in (features.float(), teacher_features.float()))
    return (student - teacher).square().sum() / len(features)


def positive_weights(labels: Tensor) -> Tensor:
    """Return the weights that let having a label and not having it count the same: n_without / n_with.

    Args:
        labels: Of the training images, 0 or 1, shape (n, L).

    Returns:
        float32, shape (L,); 1 for a label that no image has, or that all have.
    """
    having = labels.sum(dim=0)
    return torch.where((having > 0) & (having < len(labels)), (len(labels) - having) / having.clamp(min=1), 1.0).float()


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
