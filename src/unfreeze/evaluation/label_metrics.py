"""The figures of a test where an image may have several labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from unfreeze.evaluation.calibration import calibration_figures
from unfreeze.evaluation.intervals import label_intervals
from unfreeze.evaluation.per_class import areas_under_curves, mean_of_known, rows_by_name
from unfreeze.models.outputs import GIVEN_AT


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
    at = np.full(len(names), GIVEN_AT) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    given = (scores >= at).astype(np.int64)
    columns = zip(truth.T, given.T, strict=True)
    each = [
        precision_recall_fscore_support(own, said, labels=[1], average=None, zero_division=0) for own, said in columns
    ]
    precision, recall, f1, support = np.array(each)[:, :, 0].T
    predicted = given.sum(axis=0)
    occurs = (support > 0) | (predicted > 0)
    ap, auroc = areas_under_curves(scores, truth.astype(bool))
    return {
        "acc": float((given == truth).mean()),
        "acc_exact": float((given == truth).all(axis=1).mean()),
        "precision_macro": mean_of_known(precision[occurs]),
        "recall_macro": mean_of_known(recall[occurs]),
        "f1_macro": mean_of_known(f1[occurs]),
        "ap_macro": mean_of_known(ap),
        "auroc_macro": mean_of_known(auroc),
        **calibration_figures(logits, labels, multilabel=True, temperature=temperature),
        "n": len(labels),
        "intervals": {key: list(ends) for key, ends in label_intervals(truth, given).items()},
        "per_label": rows_by_name(
            names,
            {
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "support": support.astype(np.int64),
                "predicted": predicted,
                "threshold": at,
                "ap": ap,
                "auroc": auroc,
            },
        ),
    }
