"""The figures of a test, from logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from unfreeze.models.outputs import Outputs


def judge_answers(
    logits: Tensor, labels: Tensor, outputs: Outputs, *, thresholds: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return what is known of a classifier from its answers, whatever it is asked.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        outputs: What the logits stand for.
        thresholds: Of labels, each in [0, 1]; None for 0.5.
    """
    if outputs.multilabel:
        return judge_labels(logits, labels, outputs.names, thresholds=thresholds)
    if len(outputs.tasks) == 1:
        return judge(logits, labels, outputs.names)
    tasks = {
        task.name: judge(own, truth, task.classes)
        for task, own, truth in zip(outputs.tasks, outputs.split(logits), labels.T, strict=True)
    }
    means = ("acc", "acc_balanced", "precision_macro", "recall_macro", "f1_macro", "ece")
    return {
        **{key: float(np.mean([figures[key] for figures in tasks.values()])) for key in means},
        "n": len(labels),
        "tasks": tasks,
    }


def judge_labels(
    logits: Tensor, labels: Tensor, names: Sequence[str], *, thresholds: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return what is known of answers where an image may have several labels.

    Macro figures are means over the labels that occur.

    Args:
        logits: float32, shape (N, L), N >= 1.
        labels: 0 or 1, int64, shape (N, L).
        names: Of the labels, length L.
        thresholds: The probability from which each is given; None for 0.5.

    Returns:
        acc (share of right answers), acc_exact (share of images with no wrong one), precision_macro, recall_macro,
        f1_macro, ap_macro and auroc_macro (None where no label has images of both kinds), all in [0, 1]; loss in
        nats; n; per_label with precision, recall, f1, support, threshold, ap and auroc.
    """
    scores, truth = logits.double().sigmoid().numpy(), labels.numpy()
    at = np.full(len(names), 0.5) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    given = (scores >= at).astype(np.int64)
    columns = zip(truth.T, given.T, strict=True)
    each = [
        precision_recall_fscore_support(own, said, labels=[1], average=None, zero_division=0) for own, said in columns
    ]
    precision, recall, f1, support = np.array(each)[:, :, 0].T
    present = support > 0
    both = present & (support < len(truth))
    ap = [float(average_precision_score(truth[:, i], scores[:, i])) if present[i] else None for i in range(len(names))]
    auroc = [float(roc_auc_score(truth[:, i], scores[:, i])) if both[i] else None for i in range(len(names))]
    return {
        "acc": float((given == truth).mean()),
        "acc_exact": float((given == truth).all(axis=1).mean()),
        "precision_macro": _mean(precision[present]),
        "recall_macro": _mean(recall[present]),
        "f1_macro": _mean(f1[present]),
        "ap_macro": _mean([value for value in ap if value is not None]),
        "auroc_macro": _mean([value for value in auroc if value is not None]),
        "loss": float(F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))),
        "n": len(labels),
        "per_label": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
                "threshold": float(at[i]),
                "ap": ap[i],
                "auroc": auroc[i],
            }
            for i, name in enumerate(names)
        },
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def judge(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return what is known of a classifier from its answers.

    Macro figures are means over the classes that occur in the labels.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,).
        classes: Names of the classes, length C.

    Returns:
        acc, acc_top5 (None below 6 classes), acc_balanced, precision_macro, recall_macro, f1_macro, all in [0, 1];
        loss in nats; ece (15 bins; Guo et al. 2017, eq. 3); n; per_class with precision, recall, f1, support.
    """
    truth, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    present = support > 0
    top5 = (logits.topk(5).indices == labels[:, None]).any(dim=1).float().mean() if len(classes) > 5 else None
    ece = multiclass_calibration_error(logits.softmax(dim=1), labels, num_classes=len(classes), n_bins=15)
    return {
        "acc": float((predicted == truth).mean()),
        "acc_top5": None if top5 is None else float(top5),
        "acc_balanced": float(recall[present].mean()),
        "precision_macro": float(precision[present].mean()),
        "recall_macro": float(recall[present].mean()),
        "f1_macro": float(f1[present].mean()),
        "loss": float(F.cross_entropy(logits, labels)),
        "ece": float(ece),
        "n": len(labels),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        },
    }


def weakest_class(test: dict[str, Any]) -> tuple[str, float]:
    """Return the class or label with the lowest F1 among those that occur in a test, and its F1."""
    if "tasks" in test:
        weakest = {task: weakest_class(own) for task, own in test["tasks"].items()}
        task = min(weakest, key=lambda each: weakest[each][1])
        return f"{task} {weakest[task][0]}", weakest[task][1]
    per_class = test["per_label"] if "per_label" in test else test["per_class"]
    present = {name: figures["f1"] for name, figures in per_class.items() if figures["support"]}
    name = min(present, key=lambda key: present[key])
    return name, present[name]
