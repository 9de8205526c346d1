"""The figures of a test, from logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error


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


def weakest_class(per_class: dict[str, dict[str, float]]) -> tuple[str, float]:
    """Return the class with the lowest F1 among those that occur, and its F1."""
    present = {name: figures["f1"] for name, figures in per_class.items() if figures["support"]}
    name = min(present, key=lambda key: present[key])
    return name, present[name]
