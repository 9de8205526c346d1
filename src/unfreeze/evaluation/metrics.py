"""Test metrics for any kind of outputs, from logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from unfreeze.evaluation.class_metrics import class_metrics
from unfreeze.evaluation.multilabel_metrics import multilabel_metrics
from unfreeze.evaluation.predictions import StoredPredictions
from unfreeze.models.outputs import Outputs

_AVERAGED = ("acc", "acc_balanced", "precision_macro", "recall_macro", "f1_macro", "ece", "brier")


def compute_metrics(
    logits: Tensor,
    labels: Tensor,
    outputs: Outputs,
    *,
    thresholds: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the test metrics of a classifier of one class per image, of several tasks, or of several labels.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        outputs: Tasks and classes of the logits.
        thresholds: Decision threshold of each label, in [0, 1]; None for 0.5.
        temperatures: Temperature of each task, fitted on validation; None for no scaled metrics.

    Returns:
        The metrics of `class_metrics` or `multilabel_metrics`; of several tasks, means over the tasks, and the metrics
        of each under "tasks".
    """
    each: Sequence[float | None] = temperatures or [None] * len(outputs.tasks)
    if outputs.multilabel:
        return multilabel_metrics(logits, labels, outputs.names, thresholds=thresholds, temperature=each[0])
    if len(outputs.tasks) == 1:
        return class_metrics(logits, labels, outputs.names, temperature=each[0])
    tasks = {
        task.name: class_metrics(own, truth, task.classes, temperature=temperature)
        for task, own, truth, temperature in zip(outputs.tasks, outputs.split(logits), labels.T, each, strict=True)
    }
    return {
        **{key: float(np.mean([metrics[key] for metrics in tasks.values()])) for key in _AVERAGED},
        "n": len(labels),
        "tasks": tasks,
    }


def metrics_of(predictions: StoredPredictions, split: str) -> dict[str, Any] | None:
    """Return the metrics of a split; None where it has no images."""
    if split not in predictions.splits:
        return None
    own = predictions.splits[split]
    return compute_metrics(
        own.logits,
        own.labels,
        predictions.outputs,
        thresholds=predictions.thresholds,
        temperatures=predictions.temperatures,
    )
