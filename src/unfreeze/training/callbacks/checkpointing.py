"""The checkpoint that a run goes on from, the best one, their files, and the clean stop."""

import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning_utilities.core.apply_func import apply_to_collection

from unfreeze.errors import EndedEarlyError, Stopped
from unfreeze.results.monitor import Mode, Score
from unfreeze.results.run_directory import BEST, LAST
from unfreeze.system.disk import DiskFullError
from unfreeze.system.files import replacing
from unfreeze.system.signals import STOP
from unfreeze.training.module import ImageClassifier
from unfreeze.training.monitoring import has_reached_max_steps, monitored_score

_MOST_SHARE = 0.05
"""Of a run's time, about, that goes into checkpoints of epochs."""

_WRITTEN_BYTES_PER_S = 5e8
"""How fast a checkpoint is thought to be written before there was one."""

_MOST_STEPS_UNASKED = 16
_LONGEST_UNASKED_S = 1.0
"""How long ranks train on without asking each other whether a signal has come: for that they wait for their devices."""

_MAY_WAIT = "may wait"


class _Pace:
    """Limits the share of a run's time that is spent on writing checkpoints."""

    def __init__(self) -> None:
        self._written_at = time.monotonic()
        self._took_s: float | None = None

    @property
    def idle_s(self) -> float:
        """Seconds since the last time."""
        return time.monotonic() - self._written_at

    def is_due(self, weights: Iterable[torch.Tensor]) -> bool:
        """Return whether to write again; the duration of the first write is estimated from the size of the weights."""
        took_s = self._took_s
        if took_s is None:
            took_s = sum(each.nbytes for each in weights) / _WRITTEN_BYTES_PER_S
        return self.idle_s >= took_s / _MOST_SHARE

    def begin(self) -> None:
        """Count as though something had been written now."""
        self._written_at = time.monotonic()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Record the time and the duration of a write."""
        started = time.monotonic()
        yield
        self.begin()
        self._took_s = self._written_at - started


class CheckpointFiles(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all; one that may wait is held in memory while writing takes too long.

    What is held is written before any other checkpoint is, and at the end, so that files never contradict each other.
    """

    def __init__(self) -> None:
        self._held: tuple[Path, dict[str, Any]] | None = None
        self._pace = _Pace()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, or hold it.

        Args:
            checkpoint: What Lightning has put together.
            path: Of the file.
            storage_options: A dict with "may wait" true for one that need not be written at once.
        """
        path = Path(path)
        may_wait = bool(storage_options and storage_options.get(_MAY_WAIT))
        if may_wait and not self._pace.is_due(checkpoint["state_dict"].values()):
            self._held = path, _host_copy(checkpoint)
            return
        if self._held is not None and self._held[0] != path:
            self.write_held()
        self._write(checkpoint, path)
        self._held = None

    def write_held(self) -> None:
        """Write what is held."""
        if self._held is not None:
            path, checkpoint = self._held
            self._write(checkpoint, path)
            self._held = None

    def teardown(self) -> None:
        """Leave nothing unwritten, however the run has ended."""
        self.write_held()

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nbytes = 0

        def count(tensor: torch.Tensor) -> None:
            nonlocal nbytes
            nbytes += tensor.nbytes

        apply_to_collection(checkpoint, torch.Tensor, count)
        try:
            with self._pace.timed(), replacing(path, nbytes) as building:
                torch.save(checkpoint, building)
        except DiskFullError:
            self._held = None  # teardown would fail again
            raise


class BestCheckpoint(Checkpoint):
    """Saves the state with the best validation of the whole run; ties are broken by the lower loss.

    Its state is the value alone, so that a run's directory may be moved before it is resumed.

    Args:
        folder: Where `best.ckpt` goes.
        monitor: The logged metric to go by.
        mode: Which way it is better.
        keep: How many of the best validations stay; where there are several, each also has a file by its epoch.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: Mode, keep: int = 1) -> None:
        self._path = folder / BEST
        self._monitor = monitor
        self._mode: Mode = mode
        self._keep = keep
        self._best: Score | None = None
        self._kept: list[tuple[Score, str]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far, and the files of the best validations with theirs, in plain values."""
        kept = [(tuple(score), name) for score, name in self._kept]
        return {"best": None if self._best is None else tuple(self._best), "kept": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best scores."""
        best = state_dict["best"]
        self._best = None if best is None else _saved_score(best)
        self._kept = [(_saved_score(score), name) for score, name in state_dict["kept"]]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save where this validation beats all before it."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = monitored_score(trainer, self._monitor)
        if score.beats(self._best, self._mode):
            self._best = score
            can_wait = isinstance(trainer.strategy.checkpoint_io, CheckpointFiles)
            trainer.save_checkpoint(self._path, storage_options={_MAY_WAIT: True} if can_wait else None)
        if self._keep > 1 and math.isfinite(score.value):
            self._keep_one_of_the_best(trainer, score)

    def _keep_one_of_the_best(self, trainer: L.Trainer, score: Score) -> None:
        """Save a state that is one of the best, and remove the one that is no more."""
        is_last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        within_epoch = "" if is_last_batch else f"-step{trainer.global_step:06d}"
        name = f"epoch{trainer.current_epoch + 1:04d}{within_epoch}.ckpt"
        sign = -1 if self._mode == "max" else 1
        ranked = sorted([*self._kept, (score, name)], key=lambda each: (sign * each[0].value, each[0].loss))
        self._kept = ranked[: self._keep]
        if (score, name) in self._kept:
            trainer.save_checkpoint(self._path.with_name(name))
        if trainer.is_global_zero:
            for _, worse in ranked[self._keep :]:
                self._path.with_name(worse).unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """Saves the newest state at the end of epochs, every few minutes within one, and on a stop signal.

    An epoch that ends sooner than twenty checkpoints would take is not saved, unless it is the last: it is soon done
    again.

    Lightning calls it after all other callbacks, so that what it saves is complete.

    Args:
        folder: Where `last.ckpt` goes.
        every_min: Minutes between checkpoints within an epoch.
        max_time: How long to train, counted anew by each process that trains the run; None for no limit.

    Raises:
        Stopped: Within a fit, after a signal.
        EndedEarlyError: Within a fit, when `max_time` has passed, or when a callback has set `should_stop` within an
            epoch. In either case the last checkpoint is that of the step.
    """

    def __init__(self, folder: Path, *, every_min: float = 10.0, max_time: timedelta | None = None) -> None:
        self._path = folder / LAST
        self._every_s = every_min * 60
        self._max_time = max_time
        self._ends_at = math.inf
        self._pace = _Pace()
        self._unasked = 0
        self._ask_after = 1
        self._asked_at = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the signal handlers; Lightning's would end with exit code 0."""
        STOP.install()
        STOP.deferring = True
        if self._max_time is not None:
            self._ends_at = time.monotonic() + self._max_time.total_seconds()
        self._pace.begin()
        self._unasked, self._ask_after, self._asked_at = 0, 1, time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save between two optimizer steps where that is due."""
        # At an epoch's last batch Lightning would take the epoch for validated when it resumes.
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between_steps and batch_idx + 1 < trainer.num_training_batches and self._is_due_on_any_rank(trainer):
            self._save(trainer, pl_module)
            self._stop_if_requested(trainer)
            self._end_if_limited(trainer)

    def _is_due_on_any_rank(self, trainer: L.Trainer) -> bool:
        """Return whether to save between two steps; ranks agree once a second or every few steps."""
        is_due = STOP.received is not None or self._pace.idle_s > self._every_s or self._is_over(trainer)
        if trainer.world_size == 1:
            return is_due
        self._unasked += 1
        if self._unasked < self._ask_after:
            return False
        step_s = (time.monotonic() - self._asked_at) / self._unasked
        told = torch.tensor([float(is_due), step_s], device=trainer.strategy.root_device)
        anyone, slowest_s = trainer.strategy.reduce(told, reduce_op="max").tolist()
        self._ask_after = max(1, min(_MOST_STEPS_UNASKED, int(_LONGEST_UNASKED_S / max(slowest_s, 1e-6))))
        self._unasked, self._asked_at = 0, time.monotonic()
        return bool(anyone)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Allow a signal to end validation at once: the last checkpoint is valid."""
        STOP.deferring = False
        if not trainer.sanity_checking:
            self._stop_if_requested(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Defer signals to the end of a step again."""
        STOP.deferring = trainer.state.fn == "fit"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch: the last, and those that take long enough for a checkpoint not to matter."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_due = self._pace.is_due(pl_module.parameters())
        if is_last or _on_any_rank(trainer, is_due or STOP.received is not None or self._is_over(trainer)):
            self._save(trainer, pl_module)
        self._stop_if_requested(trainer)
        if not is_last:
            self._end_if_limited(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Allow signals to end the work after training at once."""
        STOP.deferring = False
        self._stop_if_requested(trainer)

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
        pl_module.check_loss_is_finite()
        with self._pace.timed():
            trainer.save_checkpoint(self._path)

    def _is_over(self, trainer: L.Trainer) -> bool:
        """Return whether the time limit has passed or a callback has set `should_stop` within an epoch."""
        stopped_by_callback = trainer.should_stop and not has_reached_max_steps(trainer)
        return stopped_by_callback or time.monotonic() > self._ends_at

    def _end_if_limited(self, trainer: L.Trainer) -> None:
        if not _on_any_rank(trainer, self._is_over(trainer)):
            return
        STOP.deferring = False
        by_callback = "trainer.should_stop was set by a callback"
        raise EndedEarlyError(by_callback if trainer.should_stop else f"trainer.max_time={self._max_time} has passed")

    def _stop_if_requested(self, trainer: L.Trainer) -> None:
        if _on_any_rank(trainer, STOP.received is not None):
            STOP.deferring = False
            raise Stopped(STOP.received or signal.SIGTERM)


def _saved_score(saved: float | tuple[float, float]) -> Score:
    """Return the score of a checkpoint; those of older versions hold the monitored value alone."""
    return Score(saved) if isinstance(saved, int | float) else Score(*saved)


def _host_copy(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint that further training does not change."""
    copied: dict[str, Any] = apply_to_collection(
        checkpoint, torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True)
    )
    weights = checkpoint["state_dict"]
    if hasattr(weights, "_metadata"):  # versions of modules, which a copied dict does not have
        copied["state_dict"]._metadata = weights._metadata
    return copied


def _on_any_rank(trainer: L.Trainer, condition: bool) -> bool:
    return condition if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(condition, all=False)
