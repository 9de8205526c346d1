"""The validation metrics that a run can be chosen by, and which way is better."""

import math
from typing import Literal

Mode = Literal["min", "max"]

MONITORS: dict[str, Mode] = {
    "val/loss": "min",
    "val/acc": "max",
    "val/acc_balanced": "max",
    "val/precision_macro": "max",
    "val/recall_macro": "max",
    "val/f1_macro": "max",
}

LABEL_MONITORS: dict[str, Mode] = {
    **{name: mode for name, mode in MONITORS.items() if name != "val/acc_balanced"},
    "val/acc_exact": "max",
    "val/ap_macro": "max",
    "val/auroc_macro": "max",
}
"""Those of images that may have several labels."""


def mode_of(monitor: str) -> Mode:
    """Return which way a metric is better; that of one task, `val/<task>/acc`, as the mean of all tasks."""
    split, *_, name = monitor.split("/")
    return {**MONITORS, **LABEL_MONITORS}[f"{split}/{name}"]


def is_better(score: float, best: float | None, mode: Mode) -> bool:
    """Return whether a score beats the best so far; the first does, a tie or what is not finite never."""
    if not math.isfinite(score):
        return False
    if best is None:
        return True
    return score < best if mode == "min" else score > best
