"""result.json: the one summary of a run that other programs may rely on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from platform import python_version
from typing import Any, Literal

from unfreeze.evaluation.metrics import weakest_class
from unfreeze.training.monitors import Mode, is_better
from unfreeze.training.progress import format_seconds

RESULT_SCHEMA = 1
_LIBRARIES = ("unfreeze", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")

_SHOWN = {
    "accuracy": "acc",
    "all labels": "acc_exact",
    "balanced": "acc_balanced",
    "ranking": "ap_macro",
    "f1 macro": "f1_macro",
}
"""What the end of a run shows of validation and test, where the objective has it."""

Row = dict[str, Any]


@dataclass
class RunResult:
    """What a run came to; filled while it goes on, so that it is true whenever it ends.

    Args:
        monitor: The metric that it was judged by.
        mode: Which way that is better.
        seed: The run's seed.
        overrides: What was typed.
        data: The data's fingerprint, the number of images per split, and what is odd about them.
        compute: In which precision and memory layout it trained, and why.
    """

    monitor: str
    mode: Mode
    seed: int
    overrides: list[str]
    data: dict[str, Any]
    compute: dict[str, Any] = field(default_factory=dict)
    status: Literal["completed", "stopped", "failed"] = "failed"
    reason: str | None = None
    best: Row | None = None
    stages: list[Row] = field(default_factory=list)
    test: dict[str, Any] | None = None
    seconds: float = 0.0

    def take_training(self, history: Sequence[Row], stages: Sequence[Row]) -> None:
        """Take the rows of the epochs and stages that training has done."""
        self.stages = [dict(stage) for stage in stages]
        self.best = None
        for row in (row for row in history if self.monitor in row):
            if is_better(row[self.monitor], None if self.best is None else self.best[self.monitor], self.mode):
                self.best = row

    @property
    def best_score(self) -> float | None:
        """The best monitored value; None before the first epoch is done."""
        return None if self.best is None else self.best[self.monitor]

    @property
    def val(self) -> dict[str, float] | None:
        """Validation metrics at the best epoch, without their prefix."""
        if self.best is None:
            return None
        return {key.removeprefix("val/"): value for key, value in self.best.items() if key.startswith("val/")}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of result.json."""
        return {
            "schema": RESULT_SCHEMA,
            "status": self.status,
            "reason": self.reason,
            "monitor": self.monitor,
            "best": None if self.best is None else {"epoch": self.best["epoch"], "stage": self.best["stage"]},
            "val": self.val,
            "test": self.test,
            "stages": self.stages,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "overrides": self.overrides,
            "versions": {"python": python_version(), **{name: version(name) for name in _LIBRARIES}},
            "data": self.data,
            "compute": self.compute,
        }

    def hyperparameter_metrics(self) -> dict[str, float]:
        """Return the final figures that runs are compared by."""
        figures = {f"final/val_{key}": value for key, value in (self.val or {}).items()}
        for key in ("acc", "acc_balanced", "acc_exact", "f1_macro", "ap_macro"):
            if self.test is not None and self.test.get(key) is not None:
                figures[f"final/test_{key}"] = self.test[key]
        return figures

    def summary(self, place: str, *, total_seconds: float) -> list[str]:
        """Return the lines that close a run in the terminal."""
        if self.status != "completed":
            again = f"go on with: python train.py resume={place}"
            return ["", f"  {self.status:<13} {self.reason}", f"  {again}", f"  {place}"]
        assert self.best is not None and self.val is not None
        test = self.test
        title = (
            f"test (once, epoch {self.best['epoch']}, {self.best['stage']})" if test else f"epoch {self.best['epoch']}"
        )
        lines = ["", f"  {'result':<13} val     {title}"]
        for name, key in _SHOWN.items():
            if key in self.val:
                of_test = test.get(key) if test else None
                tested = "" if of_test is None else f"{of_test:.3f}"
                lines.append(f"  {name:<13} {self.val[key]:.3f}   {tested}".rstrip())
        if test:
            name, f1 = weakest_class(test)
            lines[-1] += f"     weakest {'label' if 'per_label' in test else 'class'}: {name} {f1:.3f}"
            if "ece" in test:
                lines.append(f"  {'calibration':<13}         {test['ece']:.3f} (expected error)")
            for task, figures in test.get("tasks", {}).items():
                lines.append(f"  {task:<13} {self.val[f'{task}/acc']:.3f}   {figures['acc']:.3f} (accuracy)")
        stages = ", ".join(f"{stage['name']} {format_seconds(stage['seconds'])}" for stage in self.stages)
        return [*lines, f"  {'time':<13} {format_seconds(total_seconds)}: {stages}", "", f"  {place}"]
