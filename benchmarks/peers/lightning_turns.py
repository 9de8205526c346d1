"""Turns for trainers of Lightning's, this project's among them, and the fit that its peers share."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from task import WORKERS, Task
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from turns import Turns


class TakeTurns(L.Callback):
    """Holds a Trainer at the end of a step until its next turn.

    Args:
        packages: Whose versions are told.
    """

    def __init__(self, packages: Sequence[str] = ("lightning",)) -> None:
        self._packages = packages
        self.turns: Turns | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns = Turns(paced=True, packages=self._packages)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns.begin_again()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.turns.step()


def fit_and_say(
    task: Task,
    images: ImageFolder,
    model: L.LightningModule,
    callback: L.Callback,
    packages: Sequence[str] = ("lightning",),
) -> None:
    """Fit with a callback that thaws, without a bar, validation and a logger, which would only cost time."""
    loader = DataLoader(images, task.batch_size, shuffle=True, num_workers=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=sum(stage.epochs for stage in task.stages),
            callbacks=[callback, *([TakeTurns(packages)] if task.paced else [])],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        started = time.perf_counter()
        trainer.fit(model, loader)
        seconds = time.perf_counter() - started
    Turns(paced=False, packages=packages).say(train_seconds=seconds, **task.accuracy(model))
