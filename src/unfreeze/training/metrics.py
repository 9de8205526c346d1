"""The metrics of validation beside the loss."""

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
    MulticlassStatScores,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
    MultilabelStatScores,
)

from unfreeze.models.outputs import DEFAULT_THRESHOLD

_PREFIX = "val/"
_COUNTS = "counts"
"""The metric by which `taken` knows which classes or labels have occurred."""


def validation_metrics(num_classes: int) -> MetricCollection:
    """Return what validation measures beside the loss where an image has one class, from logits and labels."""
    options: Mapping[str, Any] = {"num_classes": num_classes, "validate_args": False}
    return MetricCollection(
        {
            _COUNTS: MulticlassStatScores(average="none", **options),
            "acc": MulticlassAccuracy(average="micro", **options),
            "acc_balanced": MulticlassAccuracy(average="none", **options),
            "precision_macro": MulticlassPrecision(average="none", **options),
            "recall_macro": MulticlassRecall(average="none", **options),
            "f1_macro": MulticlassF1Score(average="none", **options),
        },
        prefix=_PREFIX,
    )


def label_metrics(num_labels: int) -> MetricCollection:
    """Return what validation measures beside the loss where an image has several labels, from probabilities."""
    options: Mapping[str, Any] = {"num_labels": num_labels, "validate_args": False}
    return MetricCollection(
        {
            _COUNTS: MultilabelStatScores(average="none", **options),
            "acc": MultilabelAccuracy(average="micro", **options),
            "acc_exact": MultilabelExactMatch(**options),
            "precision_macro": MultilabelPrecision(average="none", **options),
            "recall_macro": MultilabelRecall(average="none", **options),
            "f1_macro": MultilabelF1Score(average="none", **options),
            "ap_macro": MultilabelAveragePrecision(average="none", **options),
            "auroc_macro": MultilabelAUROC(average="none", **options),
        },
        prefix=_PREFIX,
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
            chosen.append(DEFAULT_THRESHOLD)
            continue
        precision, recall, at = precision_recall_curve(truth, own)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        below = own[own < at[best]].max(initial=0.0)
        chosen.append(float((at[best] + below) / 2))
    return chosen


def compute_and_reset(metrics: MetricCollection) -> dict[str, Tensor]:
    """Return the values of metrics, and reset them; macro means are over the classes that occur, as in a test."""
    with warnings.catch_warnings():
        # The run warned of labels that no image or every image has before training.
        warnings.filterwarnings("ignore", "No (positive|negative) samples")
        values: dict[str, Tensor] = metrics.compute()
    metrics.reset()
    # True and false positives, true and false negatives, images.
    right, wrong, others, missed, images = values.pop(f"{_PREFIX}{_COUNTS}").T
    present = images > 0
    counted = {
        f"{_PREFIX}acc_balanced": present,
        f"{_PREFIX}ap_macro": present,
        f"{_PREFIX}auroc_macro": present & (wrong + others > 0),
    }
    occurs = right + wrong + missed > 0
    return {key: _mean(value, counted.get(key, occurs)) if value.ndim else value for key, value in values.items()}


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over a mask, without a host sync; 0 for an empty mask."""
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)


def joined(values: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the state of a metric over a split's batches as one tensor, shape (N, ...), also where it is a list."""
    return values if isinstance(values, Tensor) else torch.cat(list(values))
