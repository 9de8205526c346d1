"""The figures of a test where an image may have several labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from torch import Tensor

from unfreeze.evaluation.calibration import label_brier_score, label_calibration_error
from unfreeze.evaluation.intervals import label_intervals


def judge_labels(
    logits: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return what is known of answers where an image may have several labels.

    Macro figures are means over the labels that occur in truth or answers.

    Args:
        logits: float32, shape (N, L), N >= 1.
        labels: 0 or 1, int64, shape (N, L).
        names: Of the labels, length L.
        thresholds: The probability from which each is given; None for 0.5.
        temperature: What validation divides the logits by, > 0; None where it was not asked.

    Returns:
        acc (share of right answers), acc_exact (share of images with no wrong one), precision_macro, recall_macro,
        f1_macro, ap_macro and auroc_macro (None where no label has images of both kinds), ece (15 bins, of all labels'
        probabilities together), all in [0, 1]; brier; loss in nats; n; intervals, of 95 %; per_label with precision,
        recall, f1, support, predicted, threshold, ap and auroc. With a temperature, ece_scaled, brier_scaled and
        loss_scaled too.
    """
    scores, truth = logits.double().sigmoid().numpy(), labels.numpy()
    at = np.full(len(names), 0.5) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    given = (scores >= at).astype(np.int64)
    columns = zip(truth.T, given.T, strict=True)
    each = [
        precision_recall_fscore_support(own, said, labels=[1], average=None, zero_division=0) for own, said in columns
    ]
    precision, recall, f1, support = np.array(each)[:, :, 0].T
    predicted = given.sum(axis=0)
    occurs, present = (support > 0) | (predicted > 0), support > 0
    both = present & (support < len(truth))
    ap = [float(average_precision_score(truth[:, i], scores[:, i])) if present[i] else None for i in range(len(names))]
    auroc = [float(roc_auc_score(truth[:, i], scores[:, i])) if both[i] else None for i in range(len(names))]
    return {
        "acc": float((given == truth).mean()),
        "acc_exact": float((given == truth).all(axis=1).mean()),
        "precision_macro": _mean(precision[occurs]),
        "recall_macro": _mean(recall[occurs]),
        "f1_macro": _mean(f1[occurs]),
        "ap_macro": _mean([value for value in ap if value is not None]),
        "auroc_macro": _mean([value for value in auroc if value is not None]),
        "loss": float(F.binary_cross_entropy_with_logits(logits.double(), labels.double())),
        "ece": label_calibration_error(logits, labels),
        "brier": label_brier_score(logits, labels),
        **({} if temperature is None else _scaled(logits / temperature, labels)),
        "n": len(labels),
        "intervals": {key: list(ends) for key, ends in label_intervals(truth, given).items()},
        "per_label": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
                "predicted": int(predicted[i]),
                "threshold": float(at[i]),
                "ap": ap[i],
                "auroc": auroc[i],
            }
            for i, name in enumerate(names)
        },
    }


def _scaled(logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "ece_scaled": label_calibration_error(logits, labels),
        "brier_scaled": label_brier_score(logits, labels),
        "loss_scaled": float(F.binary_cross_entropy_with_logits(logits.double(), labels.double())),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
