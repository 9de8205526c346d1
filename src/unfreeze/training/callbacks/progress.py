"""Progress of a run: a bar in a terminal, and a line per epoch."""

import logging
import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from unfreeze.results.monitor import is_better
from unfreeze.system.text import format_seconds
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier

log = logging.getLogger(__name__)


class StageProgress(ProgressBar):
    """Shows stage, epoch, batches and loss while a stage trains, and one line for each epoch that is done.

    Args:
        refresh_per_second: Redraws per second; steps cost nothing in between.
    """

    def __init__(self, *, refresh_per_second: float = 4.0) -> None:
        super().__init__()
        self._interval_s = 1 / refresh_per_second
        self._console = Console(file=sys.stdout)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._drawn_at = 0.0
        self._epoch_started_at = 0.0
        self._best: float | None = None
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on ranks other than the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, which the arrows go by."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value."""
        self._best = state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock: a resume in mid-epoch has no start of its epoch."""
        self._epoch_started_at = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_started_at = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Open the bar in a terminal."""
        if self._bar is None and self._enabled and self._console.is_terminal:
            self._open_bar(_title(trainer), int(trainer.num_training_batches))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw when that is due; only then is the loss fetched from the device."""
        now = time.monotonic()
        if self._bar is not None and self._task is not None and now - self._drawn_at >= self._interval_s:
            self._drawn_at = now
            loss = float(outputs["loss"])
            self._bar.update(self._task, completed=batch_idx + 1, loss=f"loss {loss:.3f}")
            self._bar.refresh()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar and write the epoch's line."""
        self._close_bar()
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._enabled:
            return
        assert isinstance(pl_module, ImageClassifier)
        stages = _stages(trainer)
        score = float(trainer.callback_metrics[stages.monitor])
        better = is_better(score, self._best, stages.mode)
        self._best = score if better else self._best
        seconds = time.monotonic() - self._epoch_started_at
        loss = float(pl_module.train_means.means()["loss"])
        log.info(
            f"  {_title(trainer)}  {int(trainer.num_training_batches)} batches  {format_seconds(seconds)}  "
            f"loss {loss:.3f}  {stages.monitor} {score:.3f}{' ↑' if better else ''}"
        )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._close_bar()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the terminal clean."""
        self._close_bar()

    def _open_bar(self, title: str, batches: int) -> None:
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(title, total=batches, loss="")
        self._bar.start()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _title(trainer: L.Trainer) -> str:
    stages = _stages(trainer)
    planned = stages.plan.stages
    width = max(len(stage.name) for stage in planned)
    current = planned[stages.stage]
    return f"{current.name:<{width}} {stages.epochs_in_stage + 1}/{current.epochs}"


def _stages(trainer: L.Trainer) -> StagedUnfreezing:
    return next(callback for callback in trainer.callbacks if isinstance(callback, StagedUnfreezing))  # type: ignore[attr-defined]
