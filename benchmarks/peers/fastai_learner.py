"""fastai: `ImageDataLoaders`, a `Learner` with parameter groups, `freeze_to`, `fit_one_cycle`; its own optimizer.

The transforms are fastai's that do what the task asks. No bar, and no validation while it trains.
"""

import time

from fastai.vision.all import (
    Callback,
    CancelValidException,
    CropPad,
    CrossEntropyLossFlat,
    FlipItem,
    ImageDataLoaders,
    Learner,
    Normalize,
    PadMode,
    RandomCrop,
    Resize,
    imagenet_stats,
    params,
)
from task import BACKBONE_LR, HEAD_LR, PARTS, WORKERS, Task, read_task
from turns import Turns


class TakeTurns(Callback):
    """Holds the Learner at the end of a step, and leaves out validation."""

    def before_train(self):
        turns.begin_again()

    def after_batch(self):
        if self.training:
            turns.step()

    def before_validate(self):
        raise CancelValidException


def item_transforms(task: Task) -> list[object]:
    size = task.image_size
    if task.augment == "none":
        return [Resize(size)]
    return [Resize(size), CropPad(size + 2 * (size // 16), pad_mode=PadMode.Reflection), RandomCrop(size), FlipItem()]


def parameter_groups(network):
    """Return the parameters of each part of the network, from the deepest to the head."""
    return [
        [parameter for name in part for parameter in params(network.get_submodule(name))]
        for part in reversed(PARTS[task.model])
    ]


task = read_task()
turns = Turns(paced=task.paced, packages=("fastai",))
data = ImageDataLoaders.from_folder(
    task.root,
    train="train",
    valid="test",
    item_tfms=item_transforms(task),
    batch_tfms=[Normalize.from_stats(*imagenet_stats)],
    bs=task.batch_size,
    num_workers=WORKERS,
    seed=task.seed,
    device="cpu",
)
network = task.network(len(data.vocab))
learner = Learner(data, network, loss_func=CrossEntropyLossFlat(), splitter=parameter_groups)

started = time.perf_counter()
with learner.no_bar(), learner.no_logging(), learner.added_cbs(TakeTurns()):
    for stage in task.stages:
        learner.freeze_to(-stage.depth)
        learner.fit_one_cycle(stage.epochs, slice(BACKBONE_LR, HEAD_LR) if stage.depth > 1 else HEAD_LR)
turns.say(train_seconds=time.perf_counter() - started, **task.accuracy(network))
