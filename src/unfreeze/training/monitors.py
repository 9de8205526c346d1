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


def is_better(score: float, best: float | None, mode: Mode) -> bool:
    """Return whether a score beats the best so far; the first does, a tie or what is not finite never."""
    if not math.isfinite(score):
        return False
    if best is None:
        return True
    return score < best if mode == "min" else score > best
