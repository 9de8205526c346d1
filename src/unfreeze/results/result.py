"""result.json: the summary of a run, with a stable schema for other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from platform import python_version
from typing import Any, Literal

from unfreeze.results.monitor import Mode, Score

UNFINISHED = "it has not ended by itself: killed, or running still"
"""The reason in a result that was written at the start of a run and never updated."""


RESULT_SCHEMA = 1
_LIBRARIES = ("unfreeze", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")


Level = Literal["bad", "warn", "note"]


@dataclass(frozen=True)
class RunWarning:
    """A warning about the metrics of a run or its model.

    Args:
        level: "bad": do not use the model; "warn": the metrics may mislead; "note": information.
        code: Identifier for programs, such as "poor-recall".
        text: One or two sentences.
    """

    level: Level
    code: str
    text: str


Row = dict[str, Any]


def best_validation(history: Sequence[Row], monitor: str, mode: Mode) -> Row | None:
    """Return the row of metrics.csv that belongs to the best checkpoint; None without a validation."""
    best: Row | None = None
    for row in (row for row in history if monitor in row):
        if Score.of(row, monitor).beats(None if best is None else Score.of(best, monitor), mode):
            best = row
    return best


def count_epochs(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of completed epochs; other rows of metrics.csv are validations within an epoch."""
    return sum(row.get("seconds") is not None for row in history)


def versions() -> dict[str, str]:
    """Return the versions of Python and the main libraries."""
    return {"python": python_version(), **{name: version(name) for name in _LIBRARIES}}


@dataclass
class RunResult:
    """The result of a run, updated during the run, so that it is valid whenever the run ends.

    Args:
        monitor: The metric that checkpoints are selected by.
        mode: "min" or "max".
        seed: The run's seed.
        overrides: The overrides from the command line.
        data: The data's fingerprint, the number of images per split, unreadable and repeated images.
        compute: Precision and memory layout of the run, and the reason for them.
        can_go_on: True if the run can be resumed.
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
    warnings: list[RunWarning] = field(default_factory=list)
    seconds: float = 0.0
    epochs: int = 0
    can_go_on: bool = True

    def set_training(self, history: Sequence[Row], stages: Sequence[Row], *, resumed: Sequence[Row] = ()) -> None:
        """Set the rows of metrics.csv and of the stages, and where the run was resumed."""
        self.stages = [dict(stage) for stage in stages]
        self.resumed = [dict(each) for each in resumed]
        self.epochs = count_epochs(history)
        self.best = best_validation(history, self.monitor, self.mode)

    def set_test(self, temperatures: tuple[float, ...] | None, test: dict[str, Any] | None) -> None:
        """Set the temperatures and the test metrics of the best checkpoint."""
        self.temperatures, self.test = temperatures, test

    @property
    def train_acc(self) -> float | None:
        """Training accuracy in the best epoch, in [0, 1]."""
        return None if self.best is None else self.best.get("train/acc")

    @property
    def best_score(self) -> float | None:
        """The best monitored value; None before the first validation."""
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
            "warnings": [asdict(warning) for warning in self.warnings],
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
        """Return the final metrics for TensorBoard's comparison of runs, the main ones first."""
        metrics = {}
        for key in ("acc", "acc_balanced", "acc_exact", "f1_macro", "ap_macro"):
            if self.test is not None and self.test.get(key) is not None:
                metrics[f"final/test_{key}"] = self.test[key]
        return metrics | {f"final/val_{key}": value for key, value in (self.val or {}).items()}


def weakest_class(test: dict[str, Any]) -> tuple[str, float]:
    """Return the class or label with the lowest F1 among those that occur in a test, and its F1."""
    if "tasks" in test:
        weakest = {task: weakest_class(own) for task, own in test["tasks"].items()}
        task = min(weakest, key=lambda each: weakest[each][1])
        return f"{task} {weakest[task][0]}", weakest[task][1]
    present = {name: own["f1"] for name, own in metrics_by_class(test).items() if own["support"]}
    name = min(present, key=lambda key: present[key])
    return name, present[name]


def metrics_by_class(test: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each class or label, from the test metrics of one task."""
    by_class: dict[str, dict[str, Any]] = test["per_label"] if "per_label" in test else test["per_class"]
    return by_class
