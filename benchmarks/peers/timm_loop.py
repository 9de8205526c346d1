"""timm's building blocks, put together as its train.py does: loader and prefetcher, freezing, optimizer, channels last.

The crop is the task's, since timm's own presets have none like it; turning images into arrays, collating and
normalising are timm's.
"""

import time

import torch
from task import MEAN, PARTS, STD, WEIGHT_DECAY, WORKERS, live_parameters, read_task
from timm.data import create_dataset, create_loader
from timm.data.transforms import ToNumpy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, freeze, unfreeze
from torchvision.transforms import Compose
from turns import Turns

task = read_task()
turns = Turns(paced=task.paced, packages=("timm",))
dataset = create_dataset("", root=str(task.root), split="train", is_training=True)
loader = create_loader(
    dataset,
    input_size=(3, task.image_size, task.image_size),
    batch_size=task.batch_size,
    is_training=True,
    mean=MEAN,
    std=STD,
    num_workers=WORKERS,
    device=torch.device("cpu"),
)
dataset.transform = Compose([*task.moves(), ToNumpy()])
network = task.network(len(dataset.reader.class_to_idx)).to(memory_format=torch.channels_last)
loss_function = torch.nn.CrossEntropyLoss()

started = time.perf_counter()
if task.stages[0].depth < len(PARTS[task.model]):
    freeze(network, [name for name, _ in network.named_children()])
for stage in task.stages:
    unfreeze(network, task.part_names(stage.depth))
    live = live_parameters(network, task, stage.depth)
    optimizer = create_optimizer_v2(live, opt="adamw", weight_decay=WEIGHT_DECAY)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=stage.epochs, updates_per_epoch=len(loader)
    )
    for epoch in range(stage.epochs):
        network.train()
        turns.begin_again()
        losses = AverageMeter()
        for index, (inputs, target) in enumerate(loader):
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            loss = loss_function(network(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), inputs.size(0))
            scheduler.step_update(num_updates=epoch * len(loader) + index)
            turns.step()
        scheduler.step(epoch + 1)
turns.say(train_seconds=time.perf_counter() - started, **task.accuracy(network))
