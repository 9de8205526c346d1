"""Test metrics for one class per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, matthews_corrcoef, precision_recall_fscore_support
from torch import Tensor

from unfreeze.evaluation.calibration import calibration_metrics
from unfreeze.evaluation.intervals import class_intervals
from unfreeze.evaluation.per_class import areas_under_curves, mean_of_defined, rows_by_name

TOP_K = 5
_MAX_CONFUSION = 100
"""Most classes for which the metrics hold the confusion matrix; `confusion.csv` holds it for any number."""

Row = dict[str, float | None]


def class_metrics(
    logits: Tensor, labels: Tensor, classes: Sequence[str], *, temperature: float | None = None
) -> dict[str, Any]:
    """Return the test metrics of a classifier.

    Macro averages are over the classes that occur in labels or predictions, as in scikit-learn; the balanced accuracy
    is over those that occur in the labels. Undefined metrics are 0, or None for areas.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,).
        classes: Names of the classes, length C.
        temperature: Temperature fitted on validation, > 0; None for no scaled metrics.

    Returns:
        acc, acc_top5 (None below 6 classes), acc_balanced; precision, recall and f1, each as _macro, _micro and
        _weighted; ap_macro and auroc_macro (one against the rest); confidence, the mean probability of the predicted
        classes; ece (15 bins; Guo et al. 2017, eq. 3), all in [0, 1]; mcc in [-1, 1]; brier; loss in nats; n;
        intervals, of 95 %; confusion, rows are true classes (None above 100); per_class with precision, recall, f1,
        support, predicted, ap and auroc. With a temperature, also ece_scaled, brier_scaled and loss_scaled.
    """
    truth, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    numbers = np.arange(len(classes))
    probabilities = logits.double().softmax(dim=1).numpy()
    rows = _per_class(truth, predicted, probabilities, classes)
    intervals = class_intervals(truth, predicted, num_classes=len(classes))
    has_matrix = len(classes) <= _MAX_CONFUSION
    return {
        **_accuracies(logits, labels, rows),
        **_averages(truth, predicted),
        "mcc": float(matthews_corrcoef(truth, predicted)) if len(np.union1d(truth, predicted)) > 1 else 0.0,
        "ap_macro": mean_of_defined([row["ap"] for row in rows.values()]),
        "auroc_macro": mean_of_defined([row["auroc"] for row in rows.values()]),
        "confidence": float(probabilities.max(axis=1).mean()),
        **calibration_metrics(logits, labels, multilabel=False, temperature=temperature),
        "n": len(labels),
        "intervals": {key: list(ends) for key, ends in intervals.items()},
        "confusion": confusion_matrix(truth, predicted, labels=numbers).tolist() if has_matrix else None,
        "per_class": rows,
    }


def _per_class(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
) -> dict[str, Row]:
    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=numbers, zero_division=0)
    ap, auroc = areas_under_curves(probabilities, truth[:, None] == numbers)
    return rows_by_name(
        classes,
        {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": support,
            "predicted": np.bincount(predicted, minlength=len(classes)),
            "ap": ap,
            "auroc": auroc,
        },
    )


def _accuracies(logits: Tensor, labels: Tensor, rows: dict[str, Row]) -> dict[str, float | None]:
    top: float | None = None
    if logits.shape[1] > TOP_K:
        top = float((logits.topk(TOP_K).indices == labels[:, None]).any(dim=1).float().mean())
    return {
        "acc": float((logits.argmax(dim=1) == labels).numpy().mean()),
        "acc_top5": top,
        "acc_balanced": float(np.mean([row["recall"] for row in rows.values() if row["support"]])),
    }


def _averages(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for average in ("macro", "micro", "weighted"):
        values = precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        names = (f"{name}_{average}" for name in ("precision", "recall", "f1"))
        metrics |= dict(zip(names, map(float, values[:3]), strict=True))
    return metrics
