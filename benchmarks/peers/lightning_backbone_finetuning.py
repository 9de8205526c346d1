"""Lightning's `BackboneFinetuning`, and `BaseFinetuning` where there are more than two stages.

Without a progress bar, validation and a logger, which would only cost it time.
"""

import tempfile
import time

import lightning as L
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from lightning_module import TransferModel
from lightning_turns import TakeTurns
from task import BACKBONE_LR, PARTS, WORKERS, Task, read_task
from torch.utils.data import DataLoader
from turns import Turns

NEVER = 1_000_000


class UnfreezeInStages(BaseFinetuning):
    """Unfreezes a block where a stage of the task begins."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._depths: dict[int, list[int]] = {}
        epoch, depth = 0, 1
        for stage in task.stages:
            self._depths[epoch] = list(range(depth, stage.depth))
            epoch, depth = epoch + stage.epochs, stage.depth

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module, epoch, optimizer):
        for depth in self._depths.get(epoch, ()):
            self.unfreeze_and_add_param_group(pl_module.blocks(depth), optimizer, lr=BACKBONE_LR)


def finetuning(task: Task) -> BaseFinetuning:
    depths = {stage.depth for stage in task.stages}
    if depths <= {1, len(PARTS[task.model])}:
        start = 0 if len(depths) == 1 and 1 not in depths else task.stages[0].epochs if len(depths) > 1 else NEVER
        return BackboneFinetuning(start, lambda_func=lambda _: 1.0, backbone_initial_lr=BACKBONE_LR)
    return UnfreezeInStages(task)


task = read_task()
images = task.train_images()
loader = DataLoader(images, task.batch_size, shuffle=True, num_workers=WORKERS)
model = TransferModel(task, len(images.classes))
with tempfile.TemporaryDirectory() as folder:
    trainer = L.Trainer(
        max_epochs=sum(stage.epochs for stage in task.stages),
        callbacks=[finetuning(task), *([TakeTurns()] if task.paced else [])],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    started = time.perf_counter()
    trainer.fit(model, loader)
    seconds = time.perf_counter() - started
Turns(paced=False, packages=("lightning",)).say(train_seconds=seconds, **task.accuracy(model))
