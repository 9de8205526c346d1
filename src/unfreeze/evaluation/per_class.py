"""What is the same for the figures of classes and of labels: a row for each, areas, means."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Area = float | None
"""None where it is not defined, since images of both kinds do not occur."""


def areas_under_curves(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[list[Area], list[Area]]:
    """Return average precision and ROC AUC of each class or label against all others.

    Args:
        scores: Probabilities, shape (N, C).
        truth: Whether each image has each class, shape (N, C).
    """
    precisions: list[Area] = []
    aurocs: list[Area] = []
    for own, said in zip(truth.T, scores.T, strict=True):
        precisions.append(float(average_precision_score(own, said)) if own.any() else None)
        aurocs.append(float(roc_auc_score(own, said)) if own.any() and not own.all() else None)
    return precisions, aurocs


def mean_of_known(values: Sequence[Area] | NDArray[np.float64]) -> Area:
    """Return the mean of what is defined; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def rows_by_name(
    names: Sequence[str], columns: Mapping[str, Sequence[Area] | NDArray[np.float64] | NDArray[np.int64]]
) -> dict[str, dict[str, float | None]]:
    """Return the figures of each class or label, as plain numbers."""
    plain = {key: np.asarray(values, dtype=object).tolist() for key, values in columns.items()}
    return {name: {key: values[i] for key, values in plain.items()} for i, name in enumerate(names)}
