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


def syncs_per_step(case: Case) -> dict[str, float]:
    """Return how often a training step waits for the device, by what trains: all of it, or a head on features there."""
    return {
        name: in_new_process(count, case)
        for name, count in (("everything", _syncs_in_full), ("head", _syncs_on_features))
    }


def _syncs_in_full(case: Case) -> float:
    return _count_syncs(case, groups="all", augment="light")


def _syncs_on_features(case: Case) -> float:
    return _count_syncs(case, groups=1, augment="none")


def _count_syncs(case: Case, *, groups: int | str, augment: str) -> float:
    """Return the synchronising calls per step that PyTorch warns of, over an epoch whose first steps are left out."""
    import warnings

    import lightning as L
    import numpy as np
    import torch

    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.data.sources.images import ArrayImages
    from unfreeze.data.sources.source import ImageSource
    from unfreeze.models.classifier import build_classifier
    from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
    from unfreeze.training.features.options import PrefixCacheOptions
    from unfreeze.training.features.prefix_cache import FrozenPrefixCache
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.plan.plan import Stage

    count = case.batch_size * (WARMUP_STEPS + SYNTHETIC_STEPS + 1)
    pixels = np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)
    splits = np.where(np.arange(count) < count - case.batch_size, "train", "val")
    names = tuple(map(str, range(10)))
    source = ImageSource("noise", names, ArrayImages(pixels), np.arange(count) % 10, splits)
    waits: list[int] = []

    class Counter(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):  # type: ignore[no-untyped-def]
            torch.cuda.set_sync_debug_mode("warn" if batch_idx >= WARMUP_STEPS else "default")
            waits.append(len(told))

        def on_validation_start(self, trainer, pl_module):  # type: ignore[no-untyped-def]
            torch.cuda.set_sync_debug_mode("default")

    classifier = build_classifier(case.model, classes=names, weights=None, image_size=case.image_size)
    stages = StagedUnfreezing([Stage("only", groups, 2)])
    callbacks: list[L.Callback] = [
        stages,
        FrozenPrefixCache(stages, options=PrefixCacheOptions(folder=None)),
        Counter(),
    ]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            accelerator="gpu",
            devices=1,
            precision="bf16-mixed",
            max_epochs=2,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(ImageClassifier(classifier, augment=augment), ImageDataModule(source, batch_size=case.batch_size))  # type: ignore[arg-type]
    return (waits[-1] - waits[-SYNTHETIC_STEPS]) / (SYNTHETIC_STEPS - 1)


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
        header = ["images/s", f"{LOOP}, AMP", OURS, "speed-up", "computing features, once", "ratio to synthetic"]
        lines = [
            f"{torch.cuda.get_device_name()}. Random weights, interleaved steps; cached stages train on features that "
            "were computed before. Synthetic: plain bfloat16 steps on one batch that stays on the device.",
            "",
            *table(header, images_per_second(bench)),
        ]
        counted = ", ".join(f"{what} {waits:.2f}" for what, waits in syncs_per_step(CASES[0]).items())
        lines += [
            "",
            f"{CASES[0]}: number of waits for the device per step (torch.cuda.set_sync_debug_mode): {counted}.",
        ]
        if options.root and options.weights:
            lines += time_to_goal(bench, options.root)
        bench.publish("gpu", lines)


if __name__ == "__main__":
    main()
