"""result.json: the one summary of a run that other programs may rely on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from platform import python_version
from typing import Any, Literal

from unfreeze.evaluation.metrics import weakest_class
from unfreeze.evaluation.warnings import Caution, judge_trust
from unfreeze.results.monitor import Mode, Score
from unfreeze.system.text import format_seconds

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


def best_validation(history: Sequence[Row], monitor: str, mode: Mode) -> Row | None:
    """Return the row of metrics.csv whose state the best checkpoint holds; None where nothing was validated."""
    best: Row | None = None
    for row in (row for row in history if monitor in row):
        if Score.of(row, monitor).beats(None if best is None else Score.of(best, monitor), mode):
            best = row
    return best


def count_epochs(history: Sequence[Mapping[str, Any]]) -> int:
    """Return how many epochs the rows of metrics.csv close; the other rows are validations within an epoch."""
    return sum(row.get("seconds") is not None for row in history)


def versions() -> dict[str, str]:
    """Return the versions of what a run computes with."""
    return {"python": python_version(), **{name: version(name) for name in _LIBRARIES}}


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
        can_go_on: Whether a resume may end better.
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
    temperatures: tuple[float, ...] | None = None
    resumed: list[Row] = field(default_factory=list)
    warnings: list[Caution] = field(default_factory=list)
    seconds: float = 0.0
    epochs: int = 0
    can_go_on: bool = True

    def take_training(self, history: Sequence[Row], stages: Sequence[Row], *, resumed: Sequence[Row] = ()) -> None:
        """Take the rows of metrics.csv and of the stages that training has done, and where it was resumed."""
        self.stages = [dict(stage) for stage in stages]
        self.resumed = [dict(each) for each in resumed]
        self.epochs = count_epochs(history)
        self.best = best_validation(history, self.monitor, self.mode)

    def take_predictions(self, temperatures: tuple[float, ...] | None, test: dict[str, Any] | None) -> None:
        """Take what the best checkpoint has come to."""
        self.temperatures, self.test = temperatures, test

    def judge_trust(self, *, planned_epochs: int | None, chosen: tuple[str, ...] = ()) -> None:
        """Find what a person should know before trusting the model.

        Args:
            planned_epochs: The most epochs of all stages together; None where it is not known.
            chosen: What validation has chosen beside the epoch, in words.
        """
        self.warnings = judge_trust(
            self.to_dict(),
            epochs=self.epochs,
            planned_epochs=planned_epochs,
            train_acc=None if self.best is None else self.best.get("train/acc"),
            chosen=chosen,
        )

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
            "temperatures": None if self.temperatures is None else list(self.temperatures),
            "warnings": [asdict(caution) for caution in self.warnings],
            "resumed": self.resumed,
            "stages": self.stages,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "overrides": self.overrides,
            "versions": versions(),
            "data": self.data,
            "compute": self.compute,
        }

    def hyperparameter_metrics(self) -> dict[str, float]:
        """Return the final figures that runs are compared by; the first few are what TensorBoard shows unasked."""
        figures = {}
        for key in ("acc", "acc_balanced", "acc_exact", "f1_macro", "ap_macro"):
            if self.test is not None and self.test.get(key) is not None:
                figures[f"final/test_{key}"] = self.test[key]
        return figures | {f"final/val_{key}": value for key, value in (self.val or {}).items()}

    def summary(self, place: str, *, page: str, total_seconds: float) -> list[str]:
        """Return the lines that close a run in the terminal.

        Args:
            place: The run's directory, as a person types it.
            page: What to look at.
            total_seconds: Of the run, with all that is around training.
        """
        if self.status != "completed":
            again = [f"  go on with: python train.py resume={place}"] if self.can_go_on else []
            return ["", f"  {self.status:<13} {self.reason}", *again, f"  {page}"]
        assert self.best is not None and self.val is not None
        test = self.test
        title = (
            f"test (once, epoch {self.best['epoch']}, {self.best['stage']})" if test else f"epoch {self.best['epoch']}"
        )
        lines = ["", f"  {'result':<13} val     {title}"]
        for name, key in _SHOWN.items():
            if key in self.val:
                lines.append(f"  {name:<13} {self.val[key]:.3f}   {_tested(test, key)}".rstrip())
        if test:
            name, f1 = weakest_class(test)
            lines[-1] += f"     weakest {'label' if 'per_label' in test else 'class'}: {name} {f1:.3f}"
            if "ece" in test:
                lines.append(f"  {'calibration':<13}         {test['ece']:.3f}{self._after_scaling(test)}")
            for task, figures in test.get("tasks", {}).items():
                lines.append(f"  {task:<13} {self.val[f'{task}/acc']:.3f}   {figures['acc']:.3f} (accuracy)")
        stages = ", ".join(f"{stage['name']} {format_seconds(stage['seconds'])}" for stage in self.stages)
        lines.append(f"  {'time':<13} {format_seconds(total_seconds)}: {stages}")
        spoken = [f"  ! {caution.text}" for caution in self.warnings if caution.level != "note"]
        return [*lines, *([""] if spoken else []), *spoken, "", f"  {page}"]

    def _after_scaling(self, test: dict[str, Any]) -> str:
        if "ece_scaled" not in test or self.temperatures is None:
            return " (expected error)"
        told = ", ".join(f"{value:.2f}" for value in self.temperatures)
        return f" → {test['ece_scaled']:.3f} after temperature {told}"


def describe_test(result: dict[str, Any]) -> list[str]:
    """Return the lines that tell of a test alone."""
    test = result["test"]
    lines = ["", f"  {result['evaluated']}, {test['n']:,} images"]
    lines += [f"  {name:<13} {_tested(test, key)}" for name, key in _SHOWN.items() if test.get(key) is not None]
    name, f1 = weakest_class(test)
    lines.append(f"  {'weakest':<13} {name} {f1:.3f} (F1)")
    return lines + [f"  ! {caution['text']}" for caution in result["warnings"] if caution["level"] != "note"]


def _tested(test: dict[str, Any] | None, key: str) -> str:
    value = test.get(key) if test else None
    if test is None or value is None:
        return ""
    ends = (test.get("intervals") or {}).get(key)
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else f"{value:.3f}"
