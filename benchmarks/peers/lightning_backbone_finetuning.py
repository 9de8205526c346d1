"""Lightning's `BackboneFinetuning`, and `BaseFinetuning` where there are more than two stages."""

from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning
from lightning_module import TransferModel
from lightning_turns import fit_and_say
from task import BACKBONE_LR, PARTS, Task, read_task

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
fit_and_say(task, images, TransferModel(task, len(images.classes)), finetuning(task))
