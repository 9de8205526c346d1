"""Shared parts of class and multi-label metrics: areas under curves, means, and a row per class."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Area = float | None
"""Area under a curve; None if it is undefined because positives or negatives are missing."""


def areas_under_curves(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[list[Area], list[Area]]:
    """Return average precision and ROC AUC of each class or label, one against the rest.

    Args:
        scores: Probabilities, shape (N, C).
        truth: Mask of the classes of each image, shape (N, C).
    """
    precisions: list[Area] = []
    aurocs: list[Area] = []
    for own, score in zip(truth.T, scores.T, strict=True):
        precisions.append(float(average_precision_score(own, score)) if own.any() else None)
        aurocs.append(float(roc_auc_score(own, score)) if own.any() and not own.all() else None)
    return precisions, aurocs


def mean_of_defined(values: Sequence[Area] | NDArray[np.float64]) -> Area:
    """Return the mean of the defined values; None if there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def rows_by_name(
    names: Sequence[str], columns: Mapping[str, Sequence[Area] | NDArray[np.float64] | NDArray[np.int64]]
) -> dict[str, dict[str, float | None]]:
    """Return the metrics of each class or label by its name, as Python numbers."""
    plain = {key: np.asarray(values, dtype=object).tolist() for key, values in columns.items()}
    return {name: {key: values[i] for key, values in plain.items()} for i, name in enumerate(names)}
