"""Turns for trainers of Lightning's, this project's among them."""

from collections.abc import Sequence
from typing import Any

import lightning as L
from turns import Turns


class TakeTurns(L.Callback):
    """Holds a Trainer at the end of a step until its next turn.

    Args:
        packages: Whose versions are told.
        left_out: Settings that were asked for and are not there.
    """

    def __init__(self, packages: Sequence[str] = ("lightning",), left_out: Sequence[str] = ()) -> None:
        self._packages = packages
        self._left_out = left_out
        self._turns: Turns | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._turns = Turns(paced=True, packages=self._packages, left_out=self._left_out)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._turns.begin_again()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._turns.step()
