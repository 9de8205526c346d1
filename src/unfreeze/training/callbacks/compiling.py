"""torch.compile with stages: the graphs of a stage are reset before the next."""

import logging
import time
from typing import Any

import lightning as L
import torch

from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing

log = logging.getLogger(__name__)


class CompiledStages(L.Callback):
    """Resets torch.compile at each stage change, and logs what compiling costs.

    A compiled network is guarded by what requires a gradient and which modules train. A stage changes both, so that the
    network is compiled anew in each; without a reset the graphs of all stages would count towards the limit of
    recompilations, beyond which PyTorch runs it uncompiled without a word.

    Args:
        stages: The callback that changes them.
    """

    def __init__(self, stages: StagedUnfreezing) -> None:
        self._stages = stages
        self._stage = 0
        self._seconds: list[float] = []
        self._started = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the stages come first."""
        if stage == "fit":
            check_comes_after(trainer, self, self._stages)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the stage that begins or is resumed."""
        self._stage, self._seconds = self._stages.stage, []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset where a stage begins."""
        if self._stage != self._stages.stage:
            torch.compiler.reset()
            self._stage, self._seconds = self._stages.stage, []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time a stage's first two steps."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what the first step took, in which the network is compiled, and the second."""
        if len(self._seconds) < 2:
            self._seconds.append(time.perf_counter() - self._started)
            if len(self._seconds) == 2 and trainer.is_global_zero:
                name = self._stages.plan.stages[self._stages.stage].name
                first, second = self._seconds
                log.info(f"  {'compiled':<13} {name}: {first:.1f} s for the first step, {second:.2f} s for the second")
