"""Milliseconds of a head's step that each of training/step_savings.py saves: switched off and on, turn by turn.

    make bench BENCH=step_savings

Images are noise and weights random: only time counts.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler

from overheads import parse_options, request, train
from photos import write_noise
from results import publish, spread, table
from unfreeze.training import module, step_savings

IMAGES = 5000
SLICE = 20
SAVINGS = {
    "hook name": "plain attribute for the running hook",
    "profiler": "no profiler",
    "live groups": "optimizer without frozen groups",
    "means": "training means updated for 64 batches at once",
}


class Switch(L.Callback):
    """Switches a saving off and on again, and writes the milliseconds per step of each turn.

    Args:
        saving: One of `SAVINGS`.
        file: Receives pairs of medians, without and with the saving.
    """

    def __init__(self, saving: str, file: str) -> None:
        self._saving = saving
        self._file = Path(file)
        self._marks: list[float] = []
        self._medians: list[float] = []
        self._is_on = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._marks.append(time.perf_counter())
        if len(self._marks) > SLICE:
            steps = [1e3 * (b - a) for a, b in zip(self._marks, self._marks[1:], strict=False)]
            self._medians.append(statistics.median(steps))
            self._is_on = not self._is_on
            _switch(trainer, self._saving, on=self._is_on)
            self._marks = []

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        with_it, without = self._medians[2::2], self._medians[3::2]
        self._file.write_text(json.dumps(list(zip(without, with_it, strict=False))))


def _switch(trainer: L.Trainer, saving: str, *, on: bool) -> None:
    if saving == "profiler":
        trainer.profiler = step_savings.Unprofiled() if on else PassThroughProfiler()  # type: ignore[attr-defined]
    elif saving == "hook name":
        _HOOK_NAME["on" if on else "off"]()
    elif saving == "live groups":
        module.only_live_groups = step_savings.only_live_groups if on else lambda _: nullcontext()  # type: ignore
    else:
        step_savings._MOST_BATCHES = 64 if on else 1


_PLAIN = step_savings.PlainHookName.__setattr__
_HOOK_NAME: dict[str, Callable[[], None]] = {
    "on": lambda: setattr(step_savings.PlainHookName, "__setattr__", _PLAIN),
    "off": lambda: delattr(step_savings.PlainHookName, "__setattr__"),
}


def main() -> None:
    options = parse_options()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_noise(folder / "images", train=IMAGES, test=100)
        for saving, what in SAVINGS.items():
            file = folder / f"{saving}.json"
            switch = f"{{_target_: step_savings.Switch, saving: {saving}, file: '{file}'}}"
            typed = ["data.image_size=64", "data.batch_size=128", "augment=none", f"+callbacks.switch={switch}"]
            stages = "strategy.stages=[{name: head, train: 1, epochs: 60}]"
            train([*request(images, folder), *typed, stages], folder)
            pairs = sorted(json.loads(file.read_text()), key=sum)
            quiet = pairs[: max(4, len(pairs) // 4)]  # the machine is shared
            rows.append([what, spread([a - b for a, b in quiet], 3), spread([b for _, b in quiet], 2)])
    publish(
        "step savings",
        [
            "A linear head on 512 features, batch size 128: medians of 20 steps, without and with each saving in turn.",
            "",
            *table(["saving", "milliseconds saved, median (min–max)", "milliseconds of a step"], rows),
        ],
        file=options.out,
    )


if __name__ == "__main__":
    main()
