"""The loop of PyTorch's transfer-learning tutorials: PIL transforms, a DataLoader, fp32, `requires_grad = False`.

As there, `train()` is called on the whole network, so that BatchNorm in the frozen part goes on counting.
"""

import time

import torch
from task import WEIGHT_DECAY, WORKERS, live_parameters, read_task
from torch import nn
from torch.utils.data import DataLoader
from turns import Turns

task = read_task()
turns = Turns(paced=task.paced)
images = task.train_images()
loader = DataLoader(images, task.batch_size, shuffle=True, num_workers=WORKERS)
network = task.network(len(images.classes))
criterion = nn.CrossEntropyLoss()

started = time.perf_counter()
for stage in task.stages:
    for parameter in network.parameters():
        parameter.requires_grad = False
    live = live_parameters(network, task, stage.depth)
    for group in live:
        for parameter in group["params"]:
            parameter.requires_grad = True
    optimizer = torch.optim.AdamW(live, weight_decay=WEIGHT_DECAY)
    for _ in range(stage.epochs):
        network.train()
        turns.begin_again()
        running_loss = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * inputs.size(0)
            turns.step()
turns.say(train_seconds=time.perf_counter() - started, **task.accuracy(network))
