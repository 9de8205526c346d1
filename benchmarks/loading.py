"""How fast batches are ready for a backbone: this project beside torchvision's ImageFolder and a DataLoader.

Each line is measured in turns, all contenders after one another, several times over; the median counts. Rates are per
core: the DataLoader has two workers and both cores and is divided by two, this project has one thread on one core.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from photos import CLASSES, link_part, write_noise
from results import RESULTS, publish, table

BATCH_SIZE = 64
STORED, EPOCH = 15_000, 3000
"""Images of a store, and of the epochs that are timed; fewer where there are fewer."""

CONTENDERS = ("peer light", "ours light", "peer none", "ours none", "ours 32 px, pixels alone")


def peer_epoch(root: Path, *, light: bool) -> tuple[int, float]:
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    crop = [T.RandomCrop(224), T.RandomHorizontalFlip()] if light else [T.CenterCrop(224)]
    normalize = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    data = ImageFolder(str(root / "train"), T.Compose([T.Resize(256), *crop, T.ToTensor(), normalize]))
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)
    for _ in zip(range(10), loader, strict=False):  # the workers are up
        pass
    started = time.perf_counter()
    count = sum(len(labels) for _, labels in loader)
    return count, (time.perf_counter() - started) * 2


def our_epoch(root: Path, *, augment: Literal["none", "light"] | None) -> tuple[int, float]:
    from unfreeze.data.augment.augment import augment_batch
    from unfreeze.data.augment.draws import uniform_draws
    from unfreeze.data.augment.presets import PRESETS
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.data.sources.imagefolder import folder_source
    from unfreeze.data.store.framing import Resize
    from unfreeze.data.store.store import StoreOptions
    from unfreeze.models.architecture import find_architecture
    from unfreeze.system.memory import keep_freed_pages

    torch.set_num_threads(1)
    keep_freed_pages()
    preprocessing = find_architecture("mobilenet_v2").preprocessing()
    options = StoreOptions(place="disk", folder=Path(tempfile.gettempdir(), "unfreeze-benchmark"))
    data = ImageDataModule(folder_source(root), batch_size=BATCH_SIZE, store=options)
    data.build_store(Resize.of(preprocessing))
    loader = data.train_dataloader()
    for epoch in range(2):
        started, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch.labels)
            if augment is None:
                continue
            images = preprocessing.resize(batch.pixels)
            draws = uniform_draws(seed=0, epoch=epoch, indices=batch.indices)
            images = augment_batch(images, draws, how=PRESETS[augment], crop_px=preprocessing.crop_px, mirror=True)
            preprocessing.normalize(images)
    return count, time.perf_counter() - started


def store_figures(root: Path) -> list[str]:
    """Return a table of what building and opening a store of a folder takes."""
    from unfreeze.data.sources.imagefolder import folder_source
    from unfreeze.data.store.framing import Resize
    from unfreeze.data.store.store import StoreOptions, build_store

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    rows = []
    torch.zeros(1)
    with tempfile.TemporaryDirectory() as folder:
        places: list[tuple[Literal["disk", "ram"], str]]
        places = [("disk", "built"), ("disk", "opened again"), ("ram", "built in RAM")]
        for place, title in places:
            before, started = resident_mb(), time.perf_counter()
            source = folder_source(root)
            options = StoreOptions(place=place, folder=Path(folder))
            store = build_store(source, Resize(232), options=options)
            seconds, grown = time.perf_counter() - started, resident_mb() - before
            share = grown * 1e6 / store.pixels.nbytes
            rows.append(
                [f"of {len(source.images):,} files, {title}", f"{seconds:.2f} s", f"{share:.2f}x of the pixels"]
            )
    return table(["store", "time", "memory"], rows)


def run_contender(name: str, root: Path) -> tuple[int, float]:
    epochs: dict[str, Callable[[], tuple[int, float]]] = {
        "peer light": lambda: peer_epoch(root, light=True),
        "ours light": lambda: our_epoch(root, augment="light"),
        "peer none": lambda: peer_epoch(root, light=False),
        "ours none": lambda: our_epoch(root, augment="none"),
        "ours 32 px, pixels alone": lambda: our_epoch(root, augment=None),
    }
    return epochs[name]()


def measure(name: str, root: Path) -> float:
    """Return images per second and core, from a process of its own."""
    command = [sys.executable, __file__, "--contender", name, "--root", str(root)]
    if name.startswith("ours"):
        command = ["taskset", "--cpu-list", "0", *command]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    count, seconds = told.split()
    return int(count) / float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="train/ and test/ of class folders; made up where it is left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the section is kept")
    parser.add_argument("--store-only", action="store_true", help="measure the store alone")
    arguments = parser.parse_args()
    if arguments.contender:
        count, seconds = run_contender(arguments.contender, arguments.root)
        print(count, seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        images = arguments.root or write_noise(Path(folder, "noise"), train=EPOCH, test=CLASSES)
        lines = store_figures(link_part(images, Path(folder, "stored"), train=STORED, test=CLASSES))
        if arguments.store_only:
            print("\n".join(lines))
            return
        root = link_part(images, Path(folder, "epoch"), train=EPOCH, test=CLASSES)
        rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(arguments.repeats):
            for name in CONTENDERS:
                rates[name].append(measure(name, root))
    median = {name: statistics.median(values) for name, values in rates.items()}
    rows = []
    for kind, title in (("light", "crop and flip"), ("none", "no augmentation, second epoch")):
        ratio = statistics.median(
            ours / peer for ours, peer in zip(rates[f"ours {kind}"], rates[f"peer {kind}"], strict=True)
        )
        rows += [
            [f"ImageFolder, PIL, DataLoader: {title}", f"{median[f'peer {kind}']:,.0f}", "1"],
            [f"unfreeze: {title}", f"{median[f'ours {kind}']:,.0f}", f"{ratio:.1f}"],
        ]
    rows.append(["unfreeze: uint8 batches at 32 px without transforms", f"{median[CONTENDERS[-1]]:,.0f}", ""])
    lines += ["", *table(["batches of 64 at 224 px", "images/s per core", "ratio"], rows)]
    publish("loading", lines, versions={"torch": torch.__version__}, file=arguments.out)


if __name__ == "__main__":
    main()
