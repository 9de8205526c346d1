"""Hugging Face's `Trainer` with torchvision's network inside a module that returns the loss and the logits."""

import tempfile
import time

import torch
from task import WEIGHT_DECAY, WORKERS, live_parameters, read_task
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput
from turns import Turns


class ImageClassifier(nn.Module):
    """What a Trainer wants of a model."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> ImageClassifierOutput:
        logits = self.network(pixel_values)
        return ImageClassifierOutput(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


class TakeTurns(TrainerCallback):
    """Holds the Trainer at the end of a step."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        turns.begin_again()

    def on_step_end(self, args, state, control, **kwargs):
        turns.step()


def collate(examples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


task = read_task()
turns = Turns(paced=task.paced, packages=("transformers", "accelerate"))
images = task.train_images()
model = ImageClassifier(task.network(len(images.classes)))
started = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    for stage in task.stages:
        model.requires_grad_(False)
        live = live_parameters(model.network, task, stage.depth)
        for group in live:
            for parameter in group["params"]:
                parameter.requires_grad_(True)
        arguments = TrainingArguments(
            folder,
            num_train_epochs=stage.epochs,
            per_device_train_batch_size=task.batch_size,
            dataloader_num_workers=WORKERS,
            seed=task.seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        optimizer = torch.optim.AdamW(live, weight_decay=WEIGHT_DECAY, fused=True)  # as its default is
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=images,
            data_collator=collate,
            optimizers=(optimizer, None),
            callbacks=[TakeTurns()],
        )
        trainer.train()
seconds = time.perf_counter() - started
turns.say(train_seconds=seconds, **task.accuracy(model.network))
