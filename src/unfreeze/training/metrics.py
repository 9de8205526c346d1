"""What validation measures beside the loss."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)


def validation_metrics(num_classes: int) -> MetricCollection:
    """Return what validation measures beside the loss where an image has one class, from logits and labels."""
    options: Mapping[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(average="micro", **options),
            "acc_balanced": MulticlassAccuracy(average="macro", **options),
            "precision_macro": MulticlassPrecision(average="macro", **options),
            "recall_macro": MulticlassRecall(average="macro", **options),
            "f1_macro": MulticlassF1Score(average="macro", **options),
        },
        prefix="val/",
    )


def label_metrics(num_labels: int) -> MetricCollection:
    """Return what validation measures beside the loss where an image has several labels, from probabilities."""
    options: Mapping[str, Any] = {"num_labels": num_labels, "validate_args": False}
    return MetricCollection(
        {
            "acc": MultilabelAccuracy(average="micro", **options),
            "acc_exact": MultilabelExactMatch(**options),
            "precision_macro": MultilabelPrecision(average="macro", **options),
            "recall_macro": MultilabelRecall(average="macro", **options),
            "f1_macro": MultilabelF1Score(average="macro", **options),
            "ap_macro": MultilabelAveragePrecision(average="macro", **options),
            "auroc_macro": MultilabelAUROC(average="macro", **options),
        },
        prefix="val/",
    )


def best_thresholds(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> list[float]:
    """Return for each label the threshold that gives it the best F1; 0.5 where no image has the label.

    A threshold lies half-way between two scores, so that it does not stand on an answer.

    Args:
        scores: Probabilities, shape (N, L).
        labels: 0 or 1, shape (N, L).
    """
    chosen = []
    for own, truth in zip(scores.T.astype(np.float64), labels.T, strict=True):
        if not truth.any():
            chosen.append(0.5)
            continue
        precision, recall, at = precision_recall_curve(truth, own)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        below = own[own < at[best]].max(initial=0.0)
        chosen.append(float((at[best] + below) / 2))
    return chosen


def taken(metrics: MetricCollection) -> dict[str, Tensor]:
    """Return the values of metrics, and begin them again."""
    with warnings.catch_warnings():
        # A label that no image has, or that all have, was told of before the training.
        warnings.filterwarnings("ignore", "No (positive|negative) samples")
        values: dict[str, Tensor] = metrics.compute()
    metrics.reset()
    return values


def joined(values: Tensor | Sequence[Tensor]) -> Tensor:
    """Return what a split's batches left, `[N, ...]`, as one tensor, whether it is kept as one or as a list."""
    return values if isinstance(values, Tensor) else torch.cat(list(values))
