"""What every peer trains: the same images, network, stages and rates. How it trains is the peer's own."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_LR, BACKBONE_LR, WEIGHT_DECAY = 1e-3, 4e-4, 0.01
WORKERS = 2
EVAL_BATCH_SIZE = 32
GPU_WORKERS = 16
PARTS = {
    # From the head down, cut where this project's layer groups are (`unfreeze plan` shows them).
    "mobilenet_v2": (
        ("classifier",),
        tuple(f"features.{index}" for index in range(14, 19)),
        tuple(f"features.{index}" for index in range(7, 14)),
        tuple(f"features.{index}" for index in range(7)),
    ),
    **dict.fromkeys(
        ("resnet18", "resnet50"), (("fc",), ("layer4",), ("layer3",), ("conv1", "bn1", "layer1", "layer2"))
    ),
}
STAGES = {"probe": ((1, 10),), "last_block": ((2, 5),), "gradual": ((1, 3), (2, 3), (3, 4)), "finetune": ((4, 4),)}
"""Per task: how many parts train, counted from the head, and for how many epochs."""


@dataclass(frozen=True)
class Stage:
    """Some epochs in which the first parts, counted from the head, train."""

    depth: int
    epochs: int


@dataclass(frozen=True)
class Task:
    """What is asked of a peer on its command line."""

    name: str
    root: Path
    model: str
    weights: Path | None
    image_size: int
    batch_size: int
    augment: str
    seed: int
    device: str
    paced: bool
    stages: tuple[Stage, ...]

    def network(self, classes: int) -> nn.Module:
        """Return torchvision's module with its weights and a new head."""
        torch.manual_seed(self.seed)
        network = models.get_model(self.model, weights=None)
        if self.weights is not None:
            network.load_state_dict(torch.load(self.weights, weights_only=True))
        if self.model == "mobilenet_v2":
            network.classifier[1] = nn.Linear(network.last_channel, classes)
        else:
            network.fc = nn.Linear(network.fc.in_features, classes)
        return network

    def part_names(self, depth: int) -> list[str]:
        """Return the names of the modules in the first parts, counted from the head."""
        return [name for part in PARTS[self.model][:depth] for name in part]

    def moves(self) -> list[nn.Module]:
        """Return PIL transforms up to the size that the network sees."""
        size = self.image_size
        resize = [transforms.Resize(size), transforms.CenterCrop(size)]
        if self.augment == "none":
            return resize
        crop = transforms.RandomCrop(size, padding=size // 16, padding_mode="reflect")
        return [*resize, crop, transforms.RandomHorizontalFlip()]

    def train_images(self) -> ImageFolder:
        """Return the training images as normalised tensors."""
        return ImageFolder(self.root / "train", transforms.Compose([*self.moves(), *_to_normalized_tensor()]))

    def accuracy(self, network: nn.Module) -> dict[str, float]:
        """Return a network's accuracy on the test images, and the seconds that it took."""
        started = time.perf_counter()
        resize = [transforms.Resize(self.image_size), transforms.CenterCrop(self.image_size)]
        images = ImageFolder(self.root / "test", transforms.Compose([*resize, *_to_normalized_tensor()]))
        network.eval()
        with torch.inference_mode():
            batches = DataLoader(images, EVAL_BATCH_SIZE, num_workers=WORKERS)
            right = sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in batches)
        return {"test_accuracy": right / len(images), "eval_seconds": time.perf_counter() - started}


def rated_parameters(head: Sequence[nn.Parameter], backbone: Sequence[nn.Parameter]) -> list[dict[str, object]]:
    """Return optimizer groups of the head and of the backbone, each at its own rate; empty ones are left out."""
    groups = [{"params": list(head), "lr": HEAD_LR}, {"params": list(backbone), "lr": BACKBONE_LR}]
    return [group for group in groups if group["params"]]


def live_parameters(network: nn.Module, task: Task, depth: int) -> list[dict[str, object]]:
    """Return optimizer groups of the first parts, counted from the head."""
    head, *others = (
        [parameter for name in part for parameter in network.get_submodule(name).parameters()]
        for part in PARTS[task.model][:depth]
    )
    return rated_parameters(head, [parameter for part in others for parameter in part])


def read_task() -> Task:
    """Return the task that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=STAGES, default="finetune")
    parser.add_argument("--root", type=Path, required=True, help="train/ and test/ of class folders")
    parser.add_argument("--model", choices=PARTS, default="mobilenet_v2")
    parser.add_argument("--weights", type=Path, help="a state_dict of torchvision's; random weights without it")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--augment", choices=["none", "light"], default="light")
    parser.add_argument("--epochs", type=int, nargs="+", help="of each stage; without it those of the task")
    parser.add_argument("--stage", type=int, help="train this stage alone, from 0, as though those before had ended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: of the plain loop alone")
    parser.add_argument("--paced", action="store_true", help="train in turns, as benchmarks/race.py tells; no end")
    options = vars(parser.parse_args())
    depths, epochs = zip(*STAGES[options["task"]], strict=True)
    stages = tuple(Stage(*stage) for stage in zip(depths, options.pop("epochs") or epochs, strict=False))
    alone = options.pop("stage")
    stages = stages if alone is None else (stages[alone],)
    if options["paced"]:
        stages = (Stage(stages[0].depth, 1_000_000),)
    return Task(name=options.pop("task"), stages=stages, **options)


def _to_normalized_tensor() -> list[object]:
    return [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
