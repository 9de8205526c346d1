"""The figures of a test, from logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from unfreeze.evaluation.class_metrics import judge_classes
from unfreeze.evaluation.label_metrics import judge_labels
from unfreeze.models.outputs import Outputs

_OF_TASKS = ("acc", "acc_balanced", "precision_macro", "recall_macro", "f1_macro", "ece", "brier")


def judge_answers(
    logits: Tensor,
    labels: Tensor,
    outputs: Outputs,
    *,
    thresholds: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return what is known of a classifier from its answers, whatever it is asked.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        outputs: What the logits stand for.
        thresholds: Of labels, each in [0, 1]; None for 0.5.
        temperatures: What validation divides the logits of each task by; None where it was not asked.
    """
    each: Sequence[float | None] = temperatures or [None] * len(outputs.tasks)
    if outputs.multilabel:
        return judge_labels(logits, labels, outputs.names, thresholds=thresholds, temperature=each[0])
    if len(outputs.tasks) == 1:
        return judge_classes(logits, labels, outputs.names, temperature=each[0])
    tasks = {
        task.name: judge_classes(own, truth, task.classes, temperature=temperature)
        for task, own, truth, temperature in zip(outputs.tasks, outputs.split(logits), labels.T, each, strict=True)
    }
    return {
        **{key: float(np.mean([figures[key] for figures in tasks.values()])) for key in _OF_TASKS},
        "n": len(labels),
        "tasks": tasks,
    }


def weakest_class(test: dict[str, Any]) -> tuple[str, float]:
    """Return the class or label with the lowest F1 among those that occur in a test, and its F1."""
    if "tasks" in test:
        weakest = {task: weakest_class(own) for task, own in test["tasks"].items()}
        task = min(weakest, key=lambda each: weakest[each][1])
        return f"{task} {weakest[task][0]}", weakest[task][1]
    present = {name: figures["f1"] for name, figures in figures_by_class(test).items() if figures["support"]}
    name = min(present, key=lambda key: present[key])
    return name, present[name]


def figures_by_class(test: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of each class or label of a test of one task."""
    found: dict[str, dict[str, Any]] = test["per_label"] if "per_label" in test else test["per_class"]
    return found
