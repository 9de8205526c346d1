"""finetuning-scheduler with an explicit schedule whose phases end by epochs.

Without a progress bar, validation, a logger, and the restoring of best weights that needs validation.
"""

import tempfile
import time

import lightning as L
from finetuning_scheduler import FinetuningScheduler
from lightning_module import TransferModel
from lightning_turns import TakeTurns
from task import BACKBONE_LR, HEAD_LR, WORKERS, Task, read_task
from torch.utils.data import DataLoader
from turns import Turns

PACKAGES = ("lightning", "finetuning-scheduler")


def schedule(task: Task, model: L.LightningModule) -> dict[int, dict[str, object]]:
    """Return a phase for each stage, with the names of the parameters that it thaws."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    phases: dict[int, dict[str, object]] = {}
    epoch, depth = 0, 0
    for number, stage in enumerate(task.stages):
        blocks = [model.head if part == 0 else model.blocks(part) for part in range(depth, stage.depth)]
        modules = [module for block in blocks for module in (block if isinstance(block, list) else [block])]
        epoch, depth = epoch + stage.epochs, stage.depth
        phases[number] = {
            "params": [names[id(parameter)] for module in modules for parameter in module.parameters()],
            "max_transition_epoch": epoch,
            "lr": HEAD_LR if number == 0 else BACKBONE_LR,
        }
    return phases


task = read_task()
images = task.train_images()
loader = DataLoader(images, task.batch_size, shuffle=True, num_workers=WORKERS)
model = TransferModel(task, len(images.classes))
scheduler = FinetuningScheduler(schedule(task, model), epoch_transitions_only=True, restore_best=False)
with tempfile.TemporaryDirectory() as folder:
    trainer = L.Trainer(
        max_epochs=sum(stage.epochs for stage in task.stages),
        callbacks=[scheduler, *([TakeTurns(PACKAGES)] if task.paced else [])],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    started = time.perf_counter()
    trainer.fit(model, loader)
    seconds = time.perf_counter() - started
Turns(paced=False, packages=PACKAGES).say(train_seconds=seconds, **task.accuracy(model))
