"""The loop of PyTorch's transfer-learning tutorials: PIL transforms, a DataLoader, fp32, `requires_grad = False`.

As there, `train()` is called on the whole network, so that BatchNorm in the frozen part goes on counting. On a GPU it
is automatic mixed precision as PyTorch's recipe has it, with more workers and pinned memory.
"""

import time

import torch
from task import GPU_WORKERS, WEIGHT_DECAY, WORKERS, live_parameters, read_task
from torch import nn
from torch.utils.data import DataLoader
from turns import Turns

task = read_task()
turns = Turns(paced=task.paced)
device = torch.device(task.device)
use_amp = device.type == "cuda"
images = task.train_images()
workers = GPU_WORKERS if use_amp else WORKERS
loader = DataLoader(images, task.batch_size, shuffle=True, num_workers=workers, pin_memory=use_amp)
network = task.network(len(images.classes)).to(device)
criterion = nn.CrossEntropyLoss()
scaler = torch.amp.GradScaler(device.type, enabled=use_amp)

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
            inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.float16 if use_amp else None, enabled=use_amp):
                loss = criterion(network(inputs), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            running_loss += loss.item() * inputs.size(0)
            turns.step()
turns.say(train_seconds=time.perf_counter() - started, **task.accuracy(network.cpu()))
