"""This project on a CUDA device, beside the plain loop with automatic mixed precision and 16 workers.

make bench BENCH=gpu
make bench BENCH=gpu ROOT=cifar10 WEIGHTS=mobilenet_v2.pth     # and the time to 95 % of MobileNetV2
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from contest import LOOP, OURS, Bench, Case, add_options, faster, rates
from race import ENVIRONMENT, Pace
from results import spread, table

CASES = (Case("resnet18", 224, 128), Case("resnet50", 224, 128))
TASKS = {"everything": ("finetune", "light"), "linear probe": ("probe", "none"), "last block": ("last_block", "none")}
IMAGES = 20_000
SETTINGS = ("trainer=gpu", "trainer.precision=auto")
GOAL = 0.95
REACH = Case("mobilenet_v2", 224, 128)
BUDGETS = (2, 4, 6, 10)
PACE = Pace(rounds=5, timed_steps=40)
WARMUP_STEPS, SYNTHETIC_STEPS = 10, 50


def images_per_second(bench: Bench) -> list[list[str]]:
    """Return rows of all tasks, both contestants taking turns."""
    rows = []
    for case in CASES:
        for what, (task, augment) in TASKS.items():
            arguments = ("--task", task, "--augment", augment)
            replies = bench.race(
                [
                    bench.paced(LOOP, case, *arguments, "--device", "cuda", images=IMAGES),
                    bench.paced(OURS, case, *arguments, ours=SETTINGS, images=IMAGES),
                ]
            )
            if len(replies) == 2:
                loop, ours = rates(replies[LOOP]), rates(replies[OURS])
                built, seconds = (replies[OURS][-1][name] for name in ("built_images", "building_seconds"))
                building = f"{built / seconds:,.0f}" if built else ""
                part = ""
                if task == "finetune":
                    part = f"{statistics.median(ours) / in_new_process(synthetic_rate, case):.2f}"
                rows.append([f"{case}: {what}", spread(loop, 0), spread(ours, 0), faster(ours, loop), building, part])
    return rows


def in_new_process(function: Callable[[Case], float], case: Case) -> float:
    """Return what a function returns; the GPU memory that it takes is free again then."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, case).result()


def synthetic_rate(case: Case) -> float:
    """Return images/s of bare steps in bfloat16, channels last, on one batch that stays on the device."""
    import torch
    from torchvision import models

    device = torch.device("cuda")
    network = models.get_model(case.model, num_classes=10).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    size = case.image_size
    images = torch.randn(case.batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (case.batch_size,), device=device)
    started = 0.0
    for step in range(WARMUP_STEPS + SYNTHETIC_STEPS):
        if step == WARMUP_STEPS:
            torch.cuda.synchronize()
            started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    return SYNTHETIC_STEPS * case.batch_size / (time.perf_counter() - started)


def time_to_goal(bench: Bench, root: Path) -> list[str]:
    """Return a table of runs, the shortest first, until one is right on as many test images as wanted."""
    rows, reached = [], 0.0
    for epochs in (epochs for epochs in BUDGETS if reached < GOAL):
        for reply in bench.once(bench.whole(OURS, REACH, root, "--epochs", str(epochs), ours=SETTINGS)):
            reached = reply["test_accuracy"]
            rows.append([str(epochs), f"{reply['train_seconds']:.0f}", f"{reached:.4f}"])
    return ["", *table([f"{REACH}, all images: epochs", "s of training", "test accuracy"], rows)]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    options.peers_python = sys.executable  # the plain loop needs torch and torchvision alone
    return options


def main() -> None:
    options = parse_options()
    import torch

    if not torch.cuda.is_available():
        print("gpu: torch sees no CUDA device here; nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, Path(name), PACE)
        header = ["images/s", f"{LOOP}, AMP", OURS, "times as fast", "building features, once", "of synthetic"]
        lines = [
            f"{torch.cuda.get_device_name()}. Random weights, steps in turns; of cached stages on features that were "
            "built before. Synthetic: bare bfloat16 steps on one batch that stays on the device.",
            "",
            *table(header, images_per_second(bench)),
        ]
        if options.root and options.weights:
            lines += time_to_goal(bench, options.root)
        bench.publish("gpu", lines)


if __name__ == "__main__":
    main()
