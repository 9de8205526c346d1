"""`unfreeze predict` on a folder of small images, beside the bare forward pass of the same network.

In turns, each in a process of its own: the forward pass alone on one prepared batch again and again, as anybody would
time it; the same where freed memory is kept, as the command has it; then from files to rows of CSV, with all that lies
between. The start of Python and the loading of the network are not in it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command has it

import torch

from photos import write_noise
from results import RESULTS, publish, spread, table

BATCH_SIZE = 64
CONTENDERS = ("forward", "forward, memory kept", "files to CSV")
IMAGES_AT_PX = {96: 5000, 224: 1000}
"""How many are looked at in each resolution."""


def run_contender(name: str, files: list[str], *, size_px: int) -> float:
    """Return the seconds that all images take."""
    from unfreeze.inference.batch_loader import BatchLoader
    from unfreeze.inference.device import claim_device, find_device
    from unfreeze.inference.predict_files import predict_files
    from unfreeze.models.classifier import build_classifier

    classifier = build_classifier("mobilenet_v2", classes=[str(i) for i in range(10)], weights=None, image_size=size_px)
    network = classifier.network.eval()
    device = (find_device if name == CONTENDERS[0] else claim_device)("cpu")
    loader = BatchLoader(classifier, device=device, batch_size=BATCH_SIZE)
    if name == CONTENDERS[2]:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            predict_files(files, loader, form="csv", top_k=None, out=Path(folder, "rows.csv"))
            return time.perf_counter() - started
    batch = torch.rand(BATCH_SIZE, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(2):  # warms up
            network(batch)
        started = time.perf_counter()
        for begin in range(0, len(files), BATCH_SIZE):
            network(batch[: len(files) - begin])
        return time.perf_counter() - started


def measure(name: str, root: Path, *, size_px: int) -> float:
    """Return images per second, from a process of its own."""
    command = [sys.executable, __file__, "--contender", name, "--root", str(root), "--size", str(size_px)]
    count, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(count) / float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="a folder with images; made up where it is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the section is kept")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        files = sorted(str(file) for file in arguments.root.rglob("*.jp*g"))[: IMAGES_AT_PX[arguments.size]]
        print(len(files), run_contender(arguments.contender, files, size_px=arguments.size))
        return
    rows = []
    with tempfile.TemporaryDirectory() as made_up:
        root = arguments.root or write_noise(Path(made_up), train=max(IMAGES_AT_PX.values()))
        for size_px, count in IMAGES_AT_PX.items():
            turns = [
                {name: measure(name, root, size_px=size_px) for name in CONTENDERS} for _ in range(arguments.rounds)
            ]
            for name in CONTENDERS:
                shares = [turn[name] / turn[CONTENDERS[0]] for turn in turns]
                rate = statistics.median(turn[name] for turn in turns)
                rows.append([f"{count:,} images at {size_px} px: {name}", f"{rate:,.0f}", spread(shares, 2)])
    lines = table(["MobileNetV2, batches of 64", "images/s", "ratio to the forward pass"], rows)
    publish("prediction", lines, versions={"torch": torch.__version__}, file=arguments.out)


if __name__ == "__main__":
    main()
