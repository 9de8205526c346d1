"""What this project adds to the work itself: a head's step, a start from kept features, a sweep of heads, its command.

    make bench BENCH=overheads
    make bench BENCH=overheads ARGS="--only step start --rounds 3"

Images are noise and weights random: only time counts.
"""

import argparse
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn import functional as F
from torchvision.models import get_model

from photos import write_noise
from results import RESULTS, publish, spread, table
from unfreeze.system.cores import skip_nvml_check

ROOT = Path(__file__).parents[1]
SECTIONS = ("step", "start", "sweep", "command")
IMAGES = 5000
HEADS = ("strategy.lr.head=1e-4,3e-4,1e-3,2e-3,3e-3,5e-3,1e-2,3e-2", "optimizer.weight_decay=0,1e-3,1e-2,1e-1")
JOBS = 32
EPOCHS, BATCH_SIZE = 10, 64
"""Of a head, as strategy=feature_extraction and the data's configuration have them."""


class PairedSteps(L.Callback):
    """Lets a bare loop of the same head take its turn after each slice of the run's steps.

    Args:
        file: Where the milliseconds per step go, by turn.
        batch_size: Of both.
        images: That the bare loop draws from.
    """

    SLICE = 20

    def __init__(self, file: str, *, batch_size: int, images: int) -> None:
        self._file = Path(file)
        self._batch_size = batch_size
        self._images = images
        self._marks: list[float] = []
        self._turns: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._marks.append(time.perf_counter())
        if len(self._marks) > self.SLICE:
            ours = statistics.median(_differences_ms(self._marks))
            self._turns.append({"ours": ours, "bare": self._bare(pl_module)})
            self._marks = []

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._file.write_text(json.dumps(self._turns[2:]))

    @torch.enable_grad()
    def _bare(self, module: Any) -> float:
        """Return the milliseconds of a step of the tutorials' loop on features in memory."""
        width, classes = module.network.fc.in_features, module.network.fc.out_features
        if not hasattr(self, "_head"):
            self._head = torch.nn.Linear(width, classes)
            self._optimizer = torch.optim.AdamW(self._head.parameters(), lr=1e-3, fused=True)
            self._rows = torch.randn(self._images, width)
            self._labels = torch.arange(self._images) % classes
        order = torch.randperm(self._images, generator=torch.Generator().manual_seed(0))
        marks = [time.perf_counter()]
        for index in order[: self.SLICE * self._batch_size].split(self._batch_size):
            self._optimizer.zero_grad()
            loss = F.cross_entropy(self._head(self._rows[index]), self._labels[index])
            loss.backward()
            self._optimizer.step()
            marks.append(time.perf_counter())
        return statistics.median(_differences_ms(marks))


class Rows:
    """Batches of indices for Lightning, which takes a list of tensors for several loaders.

    Args:
        images: That there are.
        batch_size: Of each batch.
    """

    def __init__(self, images: int, batch_size: int) -> None:
        self._batches = torch.randperm(images).split(batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._batches)


class HeadAlone(L.LightningModule):
    """The bare loop's step as a LightningModule, with nothing beside it.

    Args:
        images: That it draws from.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.network = torch.nn.ModuleDict({"fc": torch.nn.Linear(512, 10)})
        self._rows, self._labels = torch.randn(images, 512), torch.arange(images) % 10

    def training_step(self, index: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.network["fc"](self._rows[index]), self._labels[index])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)


class FirstStep(L.Callback):
    """Leaves the seconds from the model being built to the first training step in a file, and ends the run.

    Args:
        file: Where.
    """

    built_at = 0.0

    def __init__(self, file: str) -> None:
        from unfreeze.data.datamodule import ImageDataModule

        self._file = Path(file)
        build_store = ImageDataModule.build_store

        def note_and_build(data: ImageDataModule, *arguments: Any, **options: Any) -> Any:
            # What a run does once the model is built.
            type(self).built_at = type(self).built_at or time.perf_counter()
            return build_store(data, *arguments, **options)

        ImageDataModule.build_store = note_and_build  # type: ignore[assignment, method-assign]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self._file.exists():
            self._file.write_text(str(time.perf_counter() - self.built_at))


def head_steps(folder: Path, options: argparse.Namespace) -> None:
    """A step of a linear head with everything on, and one of Lightning alone, beside one of the bare loop."""
    images = write_noise(folder / "images", train=IMAGES, test=100)
    turns: list[dict[str, float]] = []
    alone: list[dict[str, float]] = []
    for number in range(options.rounds):
        file = folder / f"steps{number}"
        clock = f"{{_target_: overheads.PairedSteps, file: '{file}', batch_size: 128, images: {IMAGES}}}"
        typed = ["data.image_size=64", "data.batch_size=128", "strategy.stages=[{name: head, train: 1, epochs: 30}]"]
        train([*request(images, folder), *typed, "augment=none", f"+callbacks.clock={clock}"], folder)
        turns += json.loads(file.read_text())
        alone += _lightning_alone(folder / f"alone{number}")
    rows = [["a step of the plain loop", spread([turn["bare"] for turn in _quietest(turns)], 2), "", "1"]]
    for what, paired in (
        ("a step of unfreeze: reading features, metrics, learning rates, seeds, TensorBoard", _quietest(turns)),
        ("a step of Lightning's loop without callbacks, loggers and metrics", _quietest(alone)),
    ):
        ours, bare = ([turn[name] for turn in paired] for name in ("ours", "bare"))
        pairs = list(zip(ours, bare, strict=True))
        rows.append([what, spread(ours, 2), spread([a - b for a, b in pairs], 2), spread([a / b for a, b in pairs], 2)])
    _publish(
        options,
        "head step",
        "A linear head on 512 features, batch size 128: medians of 20 steps, interleaved with the plain loop in one "
        "process, from the quarter of the turns in which the plain loop was fastest.",
        ["milliseconds", "median (min–max)", "over the plain loop", "ratio to the plain loop"],
        rows,
    )


def _quietest(turns: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the quarter of the turns in which the bare loop was fastest: the machine is shared."""
    return sorted(turns, key=lambda turn: turn["bare"])[: len(turns) // 4]


def _lightning_alone(file: Path) -> list[dict[str, float]]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=30,
        callbacks=[PairedSteps(str(file), batch_size=128, images=IMAGES)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    skip_nvml_check()  # as runs of this project do: only the loops are compared
    trainer.fit(HeadAlone(IMAGES), Rows(IMAGES, 128))
    told: list[dict[str, float]] = json.loads(file.read_text())
    return told


def second_start(folder: Path, options: argparse.Namespace) -> None:
    """Seconds from the model being built to the first step, where the features are there already."""
    images = write_noise(folder / "images", train=IMAGES, test=100)
    seconds = []
    for number in range(options.rounds + 1):
        file = folder / f"start{number}"
        clock = f"{{_target_: overheads.FirstStep, file: '{file}'}}"
        typed = ["data.image_size=96", "strategy=feature_extraction", f"+callbacks.clock={clock}"]
        train([*request(images, folder), *typed, "trainer.max_epochs=1"], folder)
        seconds.append(float(file.read_text()))
    _publish(
        options,
        "second start",
        f"From building the model to the first training step, {IMAGES:,} images at 96 px, each in a new process.",
        ["seconds", "median (min–max)"],
        [["features computed", spread(seconds[:1], 2)], ["features reused", spread(seconds[1:], 2)]],
    )


def sweep_of_heads(folder: Path, options: argparse.Namespace) -> None:
    """The wall clock of a sweep beside that of one of its runs, each from an empty cache."""
    images = write_noise(folder / "images", train=IMAGES, test=100)
    size = f"data.image_size={options.image_size}"
    rows = []
    for model, precision in (("resnet18", "auto"), ("resnet18", "32"), ("mobilenet_v2", "auto")):
        took = []
        for jobs, typed in ((1, []), (JOBS, ["-m", *HEADS, "search=true"])):
            own = [size, f"trainer.precision={precision}", "strategy=feature_extraction"]
            started = time.perf_counter()
            train([*typed, *request(images, folder, model=model, cache=f"{model}-{precision}-{jobs}"), *own], folder)
            took.append(time.perf_counter() - started)
        one, many = took
        bare = one + (JOBS - 1) * _bare_head_seconds(model)
        figures = [f"{one:.0f}", f"{many:.0f}", f"{many / one:.2f}", f"{bare / one:.2f}"]
        rows.append([f"{model}, trainer.precision={precision}", *figures])
    _publish(
        options,
        "sweep",
        f"Heads at {options.image_size} px, {IMAGES:,} images, {EPOCHS} epochs per head; train.py, whole processes, "
        "empty caches. Plain loop: one run, then only the training steps of the other heads, with dropout, on vectors "
        "in RAM.",
        ["", "one head, s", f"{JOBS} heads, s", "ratio", "ratio with a plain loop"],
        rows,
    )


def _bare_head_seconds(model: str) -> float:
    """Return what the steps of a stock head's epochs take a bare loop on vectors."""
    network = get_model(model, weights=None, num_classes=10)
    head = network.fc if model == "resnet18" else network.classifier
    images = int(0.9 * IMAGES)
    rows = torch.randn(images, next(head.parameters()).shape[1])
    labels = torch.arange(images) % 10
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        for index in torch.randperm(images).split(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(head(rows[index]), labels[index]).backward()
            optimizer.step()
    return time.perf_counter() - started


def command(folder: Path, options: argparse.Namespace) -> None:
    """Seconds until the package is imported, a refusal or a plan is printed, and a run has begun."""
    python, train_py = Path(sys.executable), str(ROOT / "train.py")
    unfreeze, digits = str(python.with_name("unfreeze")), ["data=digits", "model=tiny", f"cache.dir={folder / 'cache'}"]
    stage = "strategy.stages=[{name: head, train: [nose], epochs: 1}]"
    commands: dict[str, tuple[list[str], str]] = {
        "import torch": ([str(python), "-c", "import torch"], ""),
        "import lightning": ([str(python), "-c", "import lightning"], ""),
        "import unfreeze": ([str(python), "-c", "import unfreeze"], "import torch"),
        "unfreeze --help": ([unfreeze, "--help"], "import torch"),
        "unfreeze plan model=resnet50": ([unfreeze, "plan", "model=resnet50"], "import torch"),
        "unfreeze predict <no run> photo.jpg": ([unfreeze, "predict", "gone/run", "photo.jpg"], "import torch"),
        "train.py data=digit": ([str(python), train_py, "data=digit"], "import torch"),
        "train.py model.weights=V9": ([str(python), train_py, "model=resnet18", "model.weights=V9"], "import torch"),
        "train.py <a stage of no group>": ([str(python), train_py, "model=resnet18", stage], "import torch"),
        "train.py, its first line": ([str(python), train_py, *digits, "report=false"], "import lightning"),
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(max(5, options.rounds)):
        for name, (arguments, _) in commands.items():
            took[name].append(_seconds_to_first_line(arguments, folder))
    rows = []
    for name, (_, beside) in commands.items():
        ratios = [own / other for own, other in zip(took[name], took.get(beside, []), strict=False)]
        rows.append([name, spread(took[name], 2), *([spread(ratios, 2), beside] if beside else ["", ""])])
    _publish(
        options,
        "command",
        "Whole processes, interleaved, from start to end. The first line of train.py describes its data. Ratios are "
        "computed per turn.",
        ["", "seconds", "ratio", "to"],
        rows,
    )


def _seconds_to_first_line(arguments: list[str], folder: Path) -> float:
    """Return the seconds until a process has written a line, or ended without one, and end it."""
    started = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    goes_on = bool(process.stdout.readline()) and str(ROOT / "train.py") in arguments
    if not goes_on:
        process.communicate()
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    return seconds


def train(typed: Sequence[str], folder: Path) -> None:
    """Run train.py to its end."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *typed], check=True, cwd=folder, env=environment, stdout=sys.stderr
    )


def request(images: Path, folder: Path, model: str = "resnet18", cache: str = "cache") -> list[str]:
    return [
        *["data=imagefolder", f"data.root={images}", f"model={model}", "model.weights=null"],
        f"cache.dir={folder / cache}",
    ]


def _differences_ms(marks: Sequence[float]) -> list[float]:
    return [1e3 * (after - before) for before, after in itertools.pairwise(marks)]


def _publish(
    options: argparse.Namespace, section: str, what: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    publish(section, [what, "", *table(header, rows)], versions={"torch": torch.__version__}, file=options.out)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--rounds", type=int, default=4, help="processes of each")
    parser.add_argument("--image-size", type=int, default=224, help="of the sweep, in px")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where sections are kept")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    measures = {"step": head_steps, "start": second_start, "sweep": sweep_of_heads, "command": command}
    for section in options.only:
        with tempfile.TemporaryDirectory() as name:
            measures[section](Path(name), options)


if __name__ == "__main__":
    main()
