"""Test metrics for several labels per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from unfreeze.evaluation.calibration import calibration_metrics
from unfreeze.evaluation.intervals import label_intervals
from unfreeze.evaluation.per_class import Area, areas_under_curves, mean_of_defined, rows_by_name
from unfreeze.models.outputs import DEFAULT_THRESHOLD


def multilabel_metrics(
    logits: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return the test metrics of a multi-label classifier.

    Macro averages are over the labels that occur in targets or predictions.

    Args:
        logits: float32, shape (N, L), N >= 1.
        labels: 0 or 1, int64, shape (N, L).
        names: Names of the labels, length L.
        thresholds: The probability from which each label is predicted; None for 0.5.
        temperature: Temperature fitted on validation, > 0; None for no scaled metrics.

    Returns:
        acc (share of correct predictions), acc_exact (share of images with all labels correct), precision_macro,
        recall_macro, f1_macro, ap_macro and auroc_macro (None if no label has both positives and negatives), ece (15
        bins, over the probabilities of all labels), all in [0, 1]; brier; loss in nats; n; intervals, of 95 %;
        per_label with precision, recall, f1, support, predicted, threshold, ap and auroc. With a temperature, also
        ece_scaled, brier_scaled and loss_scaled.
    """
    scores, truth = logits.double().sigmoid().numpy(), labels.numpy()
    limits = np.full(len(names), DEFAULT_THRESHOLD) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    predicted = (scores >= limits).astype(np.int64)
    columns = {**_columns(truth, predicted), "threshold": limits}
    columns["ap"], columns["auroc"] = areas_under_curves(scores, truth.astype(bool))
    return {
        "acc": float((predicted == truth).mean()),
        "acc_exact": float((predicted == truth).all(axis=1).mean()),
        **_means(columns),
        **calibration_metrics(logits, labels, multilabel=True, temperature=temperature),
        "n": len(labels),
        "intervals": {key: list(ends) for key, ends in label_intervals(truth, predicted).items()},
        "per_label": rows_by_name(names, columns),
    }


def _means(columns: dict[str, Any]) -> dict[str, Area]:
    occurs = (columns["support"] > 0) | (columns["predicted"] > 0)
    return {
        "precision_macro": mean_of_defined(columns["precision"][occurs]),
        "recall_macro": mean_of_defined(columns["recall"][occurs]),
        "f1_macro": mean_of_defined(columns["f1"][occurs]),
        "ap_macro": mean_of_defined(columns["ap"]),
        "auroc_macro": mean_of_defined(columns["auroc"]),
    }


def _columns(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, Any]:
    """Return metrics of the positives of each label, each of shape (L,)."""
    each = [
        precision_recall_fscore_support(own, found, labels=[1], average=None, zero_division=0)
        for own, found in zip(truth.T, predicted.T, strict=True)
    ]
    precision, recall, f1, support = np.array(each)[:, :, 0].T
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "support": support.astype(np.int64),
        "predicted": predicted.sum(axis=0),
    }
