"""The record of a run: a row per validation and epoch, a summary per stage, on disk and in the checkpoint."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from unfreeze.results.run_directory import RunDirectory
from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier

Row = dict[str, Any]


class RunRecorder(L.Callback):
    """Writes `metrics.csv` and `stages.json` after each epoch, and scalars to every logger.

    A row belongs to a validation, or to the end of an epoch that was not validated. Only the row at the end of an epoch
    has `seconds` and `images_per_second`; `train/` metrics are means over the epoch so far.

    Args:
        directory: The run's directory.
        stages: The callback whose stages are recorded.
        identity: What must be the same when the run is resumed, in plain values.
        in_sweep: Whether the run is one of many, the best of which is drawn when all have ended.
    """

    def __init__(
        self, directory: RunDirectory, stages: StagedUnfreezing, *, identity: Mapping[str, Any], in_sweep: bool = False
    ) -> None:
        self.directory = directory
        self.in_sweep = in_sweep
        self._unfreezing = stages
        self._identity = dict(identity)
        self.history: list[Row] = []
        self.stages: list[Row] = []
        self.resumed: list[Row] = []
        self._epoch_seconds = 0.0
        self._mark = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        self._count_seconds()
        return {
            "history": self.history,
            "stages": self.stages,
            "resumed": self.resumed,
            "epoch_seconds": self._epoch_seconds,
            "identity": self._identity,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of the run."""
        self.history = state_dict["history"]
        self.stages = state_dict["stages"]
        self.resumed = state_dict.get("resumed", [])
        self._epoch_seconds = state_dict["epoch_seconds"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the stages come first."""
        if stage == "fit":
            check_comes_after(trainer, self, self._unfreezing)

    @property
    def total_seconds(self) -> float:
        """Seconds spent in all stages so far."""
        return float(sum(stage["seconds"] for stage in self.stages))

    def stop_clock(self) -> None:
        """Count the time to here."""
        self._count_seconds()
        for stage in self.stages:
            stage["seconds"] = round(stage["seconds"], 3)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and note where a run goes on."""
        self._mark = time.monotonic()
        if trainer.global_step:
            self.resumed.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step})

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the record of a stage that begins."""
        self._count_seconds()
        if len(self.stages) <= self._unfreezing.stage:
            self._epoch_seconds = 0.0
            self._open_stage(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates now and then."""
        if trainer.loggers and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, _rates(trainer))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the validation, and whether its state is the best of the stage."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, ImageClassifier)
        val = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        row = {**self._new_row(trainer, pl_module), **val, **_rates(trainer)}
        self.history.append(row)
        score, best_epoch, best_step = self._unfreezing.stage_best
        if score is not None and best_step == row["step"]:
            best = {"best_epoch": best_epoch, "val_acc": row.get("val/acc"), self._unfreezing.monitor: score.value}
            self.stages[-1] |= best

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the epoch, once."""
        epoch = trainer.current_epoch + 1
        if any(row["seconds"] is not None and row["epoch"] >= epoch for row in self.history[-1:]):
            return
        assert isinstance(pl_module, ImageClassifier)
        self._count_seconds()
        seconds, self._epoch_seconds = max(1e-9, self._epoch_seconds), 0.0
        if not self.history or (self.history[-1]["epoch"], self.history[-1]["step"]) != (epoch, trainer.global_step):
            self.history.append({**self._new_row(trainer, pl_module), **_rates(trainer)})
        row = self.history[-1]
        row["seconds"] = round(seconds, 3)
        row["images_per_second"] = round(self.stages[-1]["images"] / seconds, 1)
        self._close_epoch()
        self._log(trainer, {**_rates(trainer), **self._stage_scalars(row)})
        if trainer.is_global_zero:
            self.write()

    def note_cache(self, cache: Row) -> None:
        """Record the cached features of the current stage; the time of an epoch excludes their extraction."""
        self._count_seconds()
        if self.stages:
            before = self.stages[-1]["cache"]
            self._epoch_seconds -= cache["seconds"] - (before["seconds"] if before is not None else 0.0)
            self.stages[-1]["cache"] = cache

    def note_solution(self, solution: Row) -> None:
        """Record the solution of the current stage's head."""
        self.stages[-1]["solved"] = solution

    def write(self) -> None:
        """Write metrics.csv and stages.json, each whole or not at all."""
        self.directory.write_history(self.history, self.stages)

    def _open_stage(self, trainer: L.Trainer) -> None:
        plan, index = self._unfreezing.plan, self._unfreezing.stage
        _reset_peak_memory(trainer)
        self.stages.append(
            {
                "name": plan.stages[index].name,
                "groups": list(plan.stages[index].groups),
                "epochs": 0,
                "seconds": 0.0,
                "trainable": plan.trainable(index),
                "total": plan.total,
                "images": len(trainer.datamodule.splits.train),  # type: ignore[attr-defined]
                "memory_mb": 0,
                "cache": None,
            }
        )

    def _new_row(self, trainer: L.Trainer, module: ImageClassifier) -> Row:
        means = {f"train/{name}": float(value) for name, value in module.train_means.means().items()}
        return {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "stage": self.stages[-1]["name"],
            "seconds": None,
            "images_per_second": None,
            **means,
        }

    def _close_epoch(self) -> None:
        stage = self.stages[-1]
        stage["epochs"] += 1
        stage["seconds"] = round(stage["seconds"], 3)
        stage["memory_mb"] = max(stage["memory_mb"], _peak_memory_mb())

    def _count_seconds(self) -> None:
        now = time.monotonic()
        if self.stages:
            self.stages[-1]["seconds"] += now - self._mark
            self._epoch_seconds += now - self._mark
        self._mark = now

    def _stage_scalars(self, row: Row) -> dict[str, float]:
        return {
            "stage/index": self._unfreezing.stage,
            "stage/trainable_parameters": self.stages[-1]["trainable"],
            "train/images_per_second": row["images_per_second"],
        }

    def _log(self, trainer: L.Trainer, scalars: Mapping[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(dict(scalars), step=trainer.global_step)


def _rates(trainer: L.Trainer) -> dict[str, float]:
    return {f"lr/{group['layer_group']}": group["lr"] for group in trainer.optimizers[0].param_groups}


def _reset_peak_memory(trainer: L.Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_memory_mb() -> int:
    """Return the peak of the GPU's memory in the stage, or of the process so far where there is none, in MB."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 1e6)
    import resource

    per_mb = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mb)
