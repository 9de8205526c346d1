"""finetuning-scheduler with an explicit schedule whose phases end by epochs."""

import lightning as L
from finetuning_scheduler import FinetuningScheduler
from lightning_module import TransferModel
from lightning_turns import fit_and_say
from task import BACKBONE_LR, HEAD_LR, Task, read_task


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
model = TransferModel(task, len(images.classes))
# Best weights can't be restored without validation.
scheduler = FinetuningScheduler(schedule(task, model), epoch_transitions_only=True, restore_best=False)
fit_and_say(task, images, model, scheduler, ("lightning", "finetuning-scheduler"))
