"""The loop of the tutorials beside this project: the same images, backbone, size, batch and number of epochs.

    make bench BENCH=plain_loop
    make bench BENCH=plain_loop ARGS="--root photos --model mobilenet_v2 --image-size 96 --epochs 4"

The loop fine-tunes everything from the first epoch, with PIL transforms in a DataLoader with two workers, fp32, AdamW
3e-4 for the backbone and 1e-3 for the head. The two take turns; the table has the median of the repetitions, and
ratios, since machines are noisy. The accuracy is that of the test split: after the last epoch for the loop, by the
epoch that validation chose for this project.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from unfreeze.models.classifier import build_classifier

ROOT = Path(__file__).parents[1]


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as train/ and test/ of class folders."""
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("test" if index % 5 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).convert("RGB").save(place / f"{index}.png")
    return folder


def run_plain_loop(options: argparse.Namespace) -> tuple[float, float]:
    """Return the accuracy on the test images and the seconds per epoch."""
    torch.manual_seed(0)
    size = options.image_size
    normalize = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    moves = [transforms.RandomCrop(size, padding=size // 8, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
    moves = moves[: 2 if options.mirror else 1]
    train = ImageFolder(options.root / "train", transforms.Compose([transforms.Resize(size), *moves, *normalize]))
    test = ImageFolder(options.root / "test", transforms.Compose([transforms.Resize(size), *normalize]))
    train_loader = DataLoader(train, options.batch_size, shuffle=True, num_workers=2)
    test_loader = DataLoader(test, options.batch_size, num_workers=2)
    classifier = build_classifier(options.model, classes=train.classes, weights=options.weights)
    network, head = classifier.network, classifier.network.get_submodule(classifier.head)
    backbone = [p for name, p in network.named_parameters() if not name.startswith(f"{classifier.head}.")]
    optimizer = torch.optim.AdamW([{"params": backbone, "lr": 3e-4}, {"params": head.parameters(), "lr": 1e-3}])
    seconds = []
    for _ in range(options.epochs):
        started = time.perf_counter()
        network.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    network.eval()
    with torch.no_grad():
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in test_loader)
    return right / len(test), statistics.median(seconds)


def run_project(options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Return the accuracy on the test images and the seconds per epoch of full fine-tuning."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "data=imagefolder",
        f"data.root={options.root}",
        f"data.mirror={str(options.mirror).lower()}",
        f"data.image_size={options.image_size}",
        f"data.batch_size={options.batch_size}",
        "model=torchvision",
        f"model.name={options.model}",
        f"model.weights={options.weights}",
        f"strategy.stages=[{{name: all, train: all, epochs: {options.epochs}, warmup: 0.1}}]",
        "strategy.lr={head: 1e-3, decay: 0.3, floor: 0.3}",
        f"hydra.run.dir={folder}",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result = json.loads((folder / "result.json").read_text())
    stage = result["stages"][0]
    return result["test"]["acc"], stage["seconds"] / stage["epochs"]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="train/ and test/ of class folders; the embedded digits without it")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    options.mirror = options.root is not None
    return options


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options.root = options.root or write_digits(folder / "digits")
        loop, project = [], []
        for repetition in range(options.repeat):
            loop.append(run_plain_loop(options))
            project.append(run_project(options, folder / str(repetition)))
    loop_seconds, project_seconds = (statistics.median(s for _, s in runs) for runs in (loop, project))
    print(f"{options.model}, {options.image_size} px, batch {options.batch_size}, {options.epochs} epochs, all trained")
    print(f"{'':<12}{'test accuracy':>15}{'s per epoch':>13}{'ratio':>7}")
    print(f"{'plain loop':<12}{loop[0][0]:>15.3f}{loop_seconds:>13.1f}{1:>7.2f}")
    print(f"{'unfreeze':<12}{project[0][0]:>15.3f}{project_seconds:>13.1f}{project_seconds / loop_seconds:>7.2f}")
    print("An epoch of unfreeze includes validation and checkpoints; it trains on 90 % and validates on 10 %.")


if __name__ == "__main__":
    main()
