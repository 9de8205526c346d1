"""This project on the same task: its normal configuration, with the task's stages, rates and images.

In turns, it is composed and run as train.py does, with one more callback; whole, it is train.py. What it keeps for
later runs goes into a folder that is thrown away, so that no run starts from what another has computed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from lightning_turns import TakeTurns

ROOT = Path(__file__).parents[2]
BACKBONE_SHARE = 0.4
DEPTHS = {"probe": [1], "last_block": [2], "gradual": [1, 2, 3], "finetune": ["all"], "head_first": [1, "all"]}
EPOCHS = {"probe": [10], "last_block": [5], "gradual": [3, 3, 4], "finetune": [4], "head_first": [5, 4]}


class FitClock(L.Callback):
    """Leaves the seconds between the fit's start and its end in a file; what is computed before epoch 1 is in them.

    Args:
        file: Where.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._started = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._started = time.perf_counter()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._file.write_text(str(time.perf_counter() - self._started))


class TakeOurTurns(TakeTurns):
    """Takes turns, and tells what computing features took before the first one, and for how many images."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        recorder = next(callback for callback in trainer.callbacks if type(callback).__name__ == "RunRecorder")
        cache = recorder.stages[-1]["cache"] or {}
        self.turns.more = {"building_seconds": cache.get("seconds", 0.0), "built_images": cache.get("images", 0)}
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def overrides(options: argparse.Namespace, folder: Path) -> list[str]:
    """Return what a person would type after train.py for this task."""
    stages = [
        {"name": f"stage{number}", "train": depth, "epochs": epochs, "augment": options.augment}
        | ({} if depth == 1 else {"warmup": 0.1})
        | ({"augment": "none"} if depth == 1 and options.task == "head_first" else {})
        for number, (depth, epochs) in enumerate(
            zip(DEPTHS[options.task], options.epochs or EPOCHS[options.task], strict=False)
        )
    ]
    if options.stage is not None:
        stages = [stages[options.stage]]
    if options.paced:
        stages = [{**stages[0], "epochs": 100_000}]
    typed = [", ".join(f"{key}: {value}" for key, value in stage.items()) for stage in stages]
    return [
        "data=imagefolder",
        f"data.root={options.root.absolute()}",
        f"data.image_size={options.image_size}",
        f"data.batch_size={options.batch_size}",
        "model=torchvision",
        f"model.name={options.model}",
        f"model.weights={options.weights.absolute() if options.weights else 'null'}",
        f"strategy.stages=[{', '.join('{' + stage + '}' for stage in typed)}]",
        f"strategy.lr={{head: 1e-3, decay: {BACKBONE_SHARE}, floor: {BACKBONE_SHARE}}}",
        f"seed={options.seed}",
        f"cache.dir={folder / 'cache'}",
    ]


def train_in_turns(typed: list[str], run_dir: Path) -> None:
    """Train for ever, a slice whenever told."""
    from omegaconf import OmegaConf

    from unfreeze.config.compose import compose_config
    from unfreeze.results.run_directory import RunDirectory
    from unfreeze.runs.fit import run_job

    raw = compose_config(typed)
    OmegaConf.update(raw, "callbacks.turns", {"_target_": "this_project.TakeOurTurns"}, force_add=True)
    run_job(raw, typed, RunDirectory(run_dir))


def train_whole(typed: list[str], run_dir: Path) -> dict[str, object]:
    """Return the figures of a run of train.py."""
    clock = run_dir.parent / "seconds"
    typed = [
        *typed,
        f"+callbacks.clock={{_target_: this_project.FitClock, file: '{clock}'}}",
        f"hydra.run.dir={run_dir}",
    ]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *typed],
        check=True,
        stdout=sys.stderr,
        env={**os.environ, "PYTHONPATH": path},
    )
    caches = [stage.get("cache") or {} for stage in json.loads((run_dir / "stages.json").read_text())]
    result = json.loads((run_dir / "result.json").read_text())
    return {
        "train_seconds": float(clock.read_text()),
        "building_seconds": sum(cache.get("seconds", 0.0) for cache in caches),
        "trial_seconds": sum(cache.get("trial_seconds", 0.0) for cache in caches),
        "test_accuracy": result["test"]["acc"] if result.get("test") else None,
        "versions": {name: version(name) for name in ("torch", "torchvision", "lightning")},
    }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=DEPTHS, default="finetune")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--augment", choices=["none", "light"], default="light")
    parser.add_argument("--epochs", type=int, nargs="+")
    parser.add_argument("--stage", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paced", action="store_true")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a further override; may repeat"
    )
    return parser.parse_args()


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = [*overrides(options, folder), *options.set]
        if options.paced:
            train_in_turns(typed, folder / "run")
        else:
            print(json.dumps(train_whole(typed, folder / "run")))


if __name__ == "__main__":
    main()
