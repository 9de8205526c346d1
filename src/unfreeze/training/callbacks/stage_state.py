"""The state of a stage: what a checkpoint saves, a resume restores and an advance replaces."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfreeze.results.monitor import Mode, Score, is_better
from unfreeze.training.snapshot import Snapshot


@dataclass
class StageState:
    """The current stage, and everything that decides when it ends.

    Args:
        index: The stage's position in the plan.
        epochs: Epochs of the stage that are done.
        steps: Optimizer and accumulation steps of the stage that are done.
        epochs_counted: Epochs of the run that are counted; a resume at an epoch's end must not count it twice.
        waited: Validations since the monitored value improved.
        best: The best validation of the stage; None before the first.
        best_epoch: Its epoch in the run, counted from 1; 0 before the first.
        best_step: Its optimizer step in the run.
        snapshot: The weights and moments of the best validation, where the next stage starts from them.
        is_over: Whether the stage has ended and another one follows.
        is_complete: Whether the last stage has ended.
    """

    index: int = 0
    epochs: int = 0
    steps: int = 0
    epochs_counted: int = 0
    waited: int = 0
    best: Score | None = None
    best_epoch: int = 0
    best_step: int = 0
    snapshot: Snapshot | None = None
    is_over: bool = False
    is_complete: bool = False

    def advanced(self) -> "StageState":
        """Return the state at the start of the next stage."""
        return StageState(index=self.index + 1, epochs_counted=self.epochs_counted)

    def update(self, score: Score, mode: Mode, *, epoch: int, step: int) -> bool:
        """Count a validation, and return whether it is the best of the stage.

        Args:
            score: The monitored value and the loss that breaks ties.
            mode: Which way the value is better.
            epoch: Of the run, counted from 1.
            step: Optimizer steps of the run.
        """
        improved = is_better(score.value, None if self.best is None else self.best.value, mode)
        self.waited = 0 if improved else self.waited + 1
        if not score.beats(self.best, mode):
            return False
        self.best, self.best_epoch, self.best_step = score, epoch, step
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and tensors from which `from_dict` makes an equal state."""
        return {
            "stage": self.index,
            "epochs_in_stage": self.epochs,
            "steps_in_stage": self.steps,
            "epochs_counted": self.epochs_counted,
            "waited": self.waited,
            "best_score": None if self.best is None else self.best.value,
            "best_loss": math.inf if self.best is None else self.best.loss,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "snapshot": self.snapshot,
            "advance_pending": self.is_over,
            "complete": self.is_complete,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageState":
        """Return the state that `to_dict` described, of earlier versions too."""
        score = values["best_score"]
        return cls(
            index=values["stage"],
            epochs=values["epochs_in_stage"],
            steps=values["steps_in_stage"],
            epochs_counted=values["epochs_counted"],
            waited=values["waited"],
            best=None if score is None else Score(score, values.get("best_loss", math.inf)),
            best_epoch=values["best_epoch"],
            best_step=values.get("best_step", 0),
            snapshot=values["snapshot"],
            is_over=values["advance_pending"],
            is_complete=values["complete"],
        )
