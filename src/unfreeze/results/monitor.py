"""Validation metrics for model selection, and their direction."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

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
"""The metrics for several labels per image."""


class Score(NamedTuple):
    """The score of one validation, by which epochs, checkpoints and runs are selected.

    Attributes:
        value: The monitored metric.
        loss: The validation loss in nats per image, which breaks ties; infinite if unknown.
    """

    value: float
    loss: float = math.inf

    @classmethod
    def of(cls, metrics: Mapping[str, Any], monitor: str) -> "Score":
        """Return the score from logged metrics, of which `val/loss` may be absent."""
        return cls(float(metrics[monitor]), float(metrics.get("val/loss", math.inf)))

    def beats(self, best: "Score | None", mode: Mode) -> bool:
        """Return whether this score is better than the best so far; ties are broken by the loss."""
        if best is None or self.value != best.value:
            return is_better(self.value, None if best is None else best.value, mode)
        return self.loss < best.loss


def mode_of(monitor: str) -> Mode:
    """Return whether lower or higher is better for a metric, also for that of one task, `val/<task>/acc`."""
    split, *_, name = monitor.split("/")
    return {**MONITORS, **LABEL_MONITORS}[f"{split}/{name}"]


def is_better(score: float, best: float | None, mode: Mode) -> bool:
    """Return whether a score is better than the best so far; false for ties and values that are not finite."""
    if not math.isfinite(score):
        return False
    if best is None:
        return True
    return score < best if mode == "min" else score > best
