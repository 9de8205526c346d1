"""The figures of a test where an image has one class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, matthews_corrcoef, precision_recall_fscore_support
from torch import Tensor

from unfreeze.evaluation.calibration import calibration_figures
from unfreeze.evaluation.intervals import class_intervals
from unfreeze.evaluation.per_class import areas_under_curves, mean_of_known, rows_by_name

TOP_K = 5
_LARGEST_CONFUSION = 100
"""Classes up to which the confusion matrix stands in the figures; `confusion.csv` has it whatever their number."""


def judge_classes(
    logits: Tensor, labels: Tensor, classes: Sequence[str], *, temperature: float | None = None
) -> dict[str, Any]:
    """Return what is known of a classifier from its answers.

    Macro figures are means over the classes that occur in labels or answers, as scikit-learn has them; the balanced
    accuracy is a mean over those that occur in the labels. Where something is not defined it is 0, or None for areas.

    Args:
        logits: float32, shape (N, C), N >= 1.
        labels: int64, shape (N,).
        classes: Names of the classes, length C.
        temperature: What validation divides the logits by, > 0; None where it was not asked.

    Returns:
        acc, acc_top5 (None below 6 classes), acc_balanced; precision, recall and f1, each as _macro, _micro and
        _weighted; ap_macro and auroc_macro (one class against all others); confidence, the mean of what is said of
        the answers; ece (15 bins; Guo et al. 2017, eq. 3), all in [0, 1]; mcc in [-1, 1]; brier; loss in nats; n;
        intervals, of 95 %; confusion, rows are true classes (None above 100); per_class with precision, recall, f1,
        support, predicted, ap and auroc. With a temperature, ece_scaled, brier_scaled and loss_scaled too.
    """
    truth, answers = labels.numpy(), logits.argmax(dim=1).numpy()
    numbers = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(truth, answers, labels=numbers, zero_division=0)
    probabilities = logits.double().softmax(dim=1).numpy()
    ap, auroc = areas_under_curves(probabilities, truth[:, None] == numbers)
    predicted = np.bincount(answers, minlength=len(classes))
    top = (logits.topk(TOP_K).indices == labels[:, None]).any(dim=1).float().mean() if len(classes) > TOP_K else None
    small = len(classes) <= _LARGEST_CONFUSION
    return {
        "acc": float((answers == truth).mean()),
        "acc_top5": None if top is None else float(top),
        "acc_balanced": float(recall[support > 0].mean()),
        **_averages(truth, answers),
        "mcc": float(matthews_corrcoef(truth, answers)) if len(np.union1d(truth, answers)) > 1 else 0.0,
        "ap_macro": mean_of_known(ap),
        "auroc_macro": mean_of_known(auroc),
        "confidence": float(probabilities.max(axis=1).mean()),
        **calibration_figures(logits, labels, multilabel=False, temperature=temperature),
        "n": len(labels),
        "intervals": {
            key: list(ends) for key, ends in class_intervals(truth, answers, num_classes=len(classes)).items()
        },
        "confusion": confusion_matrix(truth, answers, labels=numbers).tolist() if small else None,
        "per_class": rows_by_name(
            classes,
            {
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "support": support,
                "predicted": predicted,
                "ap": ap,
                "auroc": auroc,
            },
        ),
    }


def _averages(truth: NDArray[np.int64], answers: NDArray[np.int64]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for average in ("macro", "micro", "weighted"):
        values = precision_recall_fscore_support(truth, answers, average=average, zero_division=0)
        names = (f"{name}_{average}" for name in ("precision", "recall", "f1"))
        figures |= dict(zip(names, map(float, values[:3]), strict=True))
    return figures
