"""Heads, objectives and options together: each pair trains an epoch per stage, or is refused by name."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch import train

STAGES = "strategy.stages="
FACTORS: dict[str, dict[str, list[str]]] = {
    "head": {
        "linear": ["head=linear", "head.dropout=0.2"],
        "mlp": ["head=mlp", "head.hidden=8"],
        "cosine": ["head=cosine"],
        "multitask": ["head=multitask"],
    },
    "objective": {
        "classify": [],
        "focal": ["objective.loss=focal"],
        "smoothing": ["objective.label_smoothing=0.1"],
        "multilabel": ["objective=multilabel"],
        "distill": ["objective=distill", "objective.teacher=teacher"],
        "features": ["objective=distill", "objective.teacher=teacher", "objective.match=features"],
    },
    "stages": {
        "two": [f"{STAGES}[{{name: head, train: 1, epochs: 1}}, {{name: all, train: all, epochs: 1}}]"],
        "norms": [f"{STAGES}[{{name: head, train: 1, epochs: 1}}, {{name: all, train: all, epochs: 1, only: norms}}]"],
        "own": [
            f"{STAGES}[{{name: head, train: 1, epochs: 1, augment: none}}, {{name: all, train: all, epochs: 1, "
            "optimizer: sgd, schedule: one_cycle, lr: {decay: 0.5, floor: 0.1}}]"
        ],
        "probe": ["strategy=probe"],
    },
    "average": {"weights": [], "ema": ["callbacks=ema"], "swa": ["callbacks=swa"]},
    "precision": {"float32": ["trainer.precision=32"], "bf16": ["trainer.precision=bf16-mixed"]},
    "augment": {"light": [], "mixing": ["augment=strong"]},
    "cache": {"cached": [], "views": ["cache.views=2"], "uncached": ["cache.enabled=false"]},
    "balance": {"as_it_is": [], "weighted": ["data.balance=weights"], "sampler": ["data.balance=sampler"]},
    "optimizer": {"adamw": [], "sgd": ["optimizer=sgd", "optimizer.lr_batch=32"]},
    "clip": {"unclipped": [], "clipped": ["trainer.gradient_clip_val=1.0"]},
    "accumulate": {"each": [], "accumulated": ["trainer.accumulate_grad_batches=2"]},
    "checkpointing": {"kept": [], "recomputed": ["model.checkpointing=true"]},
    "frozen_norm": {"standing": [], "counting": ["strategy.frozen_norm=train"]},
    "channels": {"colour": [], "grey": ["model.in_chans=1"]},
    "compile": {"eager": [], "compiled": ["trainer.compile=true"]},
}
FIRST = {factor: next(iter(values)) for factor, values in FACTORS.items()}
REFUSED = {
    # what is beside what: what the line says
    ("multitask", "multilabel"): "objective=multilabel has one head for all labels",
    ("multitask", "distill"): "objective=distill teaches one task",
    ("multitask", "features"): "objective=distill teaches one task",
    ("multitask", "probe"): "leave out head=multitask",
    ("multilabel", "sampler"): "type data.balance=weights",
    ("multilabel", "probe"): "leave out objective=multilabel",
    ("distill", "probe"): "leave out objective=distill",
    ("features", "probe"): "leave out objective=distill",
    ("focal", "probe"): "leave out objective.loss",
    ("smoothing", "probe"): "leave out objective.label_smoothing",
    ("mlp", "probe"): "solver lbfgs",
    ("cosine", "probe"): "solver lbfgs",
    ("features", "compiled"): "a compiled network shows no features",
    ("recomputed", "compiled"): "trainer.compile decides itself what to keep",
    ("probe", "uncached"): "leave out cache.enabled=false",
    ("probe", "counting"): "leave out strategy.frozen_norm=train",
}
SLOW_TO_START = {"compiled"}
Choice = dict[str, str]


def pairs(choice: Choice) -> set[tuple[str, str]]:
    return set(itertools.combinations((choice[factor] for factor in FACTORS if factor in choice), 2))


def pairwise() -> list[Choice]:
    """Return few choices among which each pair of values stands at least once, but for those that are refused."""
    every = {
        pair
        for one, other in itertools.combinations(FACTORS, 2)
        for pair in itertools.product(FACTORS[one], FACTORS[other])
    }
    waiting = {pair for pair in every if pair not in REFUSED and not SLOW_TO_START & set(pair)}
    factor_of = {value: factor for factor, values in FACTORS.items() for value in values}
    chosen = []
    while waiting:
        choice = {factor_of[value]: value for value in min(waiting)}
        for factor in FACTORS:
            if factor not in choice:
                fitting = [
                    value
                    for value in FACTORS[factor]
                    if value not in SLOW_TO_START and not pairs({**choice, factor: value}) & REFUSED.keys()
                ]
                choice[factor] = max(fitting, key=lambda value: len(pairs({**choice, factor: value}) & waiting))
        chosen.append(choice)
        waiting -= pairs(choice)
    return chosen


def singles() -> list[Choice]:
    """Return each head with each objective and each value of the other factors."""
    return [
        {**FIRST, "head": head, "objective": objective, factor: value}
        for head, objective in itertools.product(FACTORS["head"], FACTORS["objective"])
        for factor in FACTORS
        if factor not in ("head", "objective")
        for value in FACTORS[factor]
        if value != FIRST[factor] or factor == "stages"
    ]


def refused() -> Iterator[Choice]:
    """Yield a choice for each pair that is refused, all else being plain."""
    factor_of = {value: factor for factor, values in FACTORS.items() for value in values}
    for pair in REFUSED:
        yield {**FIRST, **{factor_of[value]: value for value in pair}}


def name_of(choice: Choice) -> str:
    return "-".join(value for factor, value in choice.items() if value != FIRST[factor]) or "plain"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 48 images, a table with labels and tasks of each, and a run that can teach."""
    folder = tmp_path_factory.mktemp("combinations")
    random = np.random.default_rng(0)
    rows = ["path,bright,red,tone,hue"]
    for number in range(48):
        bright, red = number % 2, number // 2 % 2
        pixels = random.normal(60 + 120 * bright, 20, (24, 24, 3))
        pixels[..., 0 if red else 2] += 50
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{bright},{red},{('dark', 'bright')[bright]},{('blue', 'red')[red]}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")
    done = train([*request(FIRST), "hydra.run.dir=teacher", "data.image_size=40"], folder)
    assert done.code == 0, done.err
    return folder


def request(choice: Choice) -> list[str]:
    multilabel, multitask = choice["objective"] == "multilabel", choice["head"] == "multitask"
    labels = "[bright,red]" if multilabel else "[tone,hue]" if multitask else "tone"
    return [
        "data=manifest",
        "data.csv=photos.csv",
        f"data.columns.label={labels}",
        "data.image_size=32",
        "data.batch_size=8",
        "model=tiny",
        "model.weights=null",
        "logger=none",
        "cache.dir=kept",
        *(override for factor, value in choice.items() for override in FACTORS[factor][value]),
        "report=false",
        *(["augment=none"] if choice["stages"] == "probe" and choice["augment"] == "light" else []),
    ]


def check(choice: Choice, place: Path, run_dir: Path) -> None:
    done = train([*request(choice), f"hydra.run.dir={run_dir}"], place)
    lines = [line for pair, line in REFUSED.items() if set(pair) <= set(choice.values())]
    if lines:
        assert done.code == 2, done.out
        assert any(line in done.err for line in lines), done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not run_dir.exists()
        return
    assert done.code == 0, done.err
    result = json.loads((run_dir / "result.json").read_text())
    assert result["status"] == "completed"
    assert len(result["stages"]) == (1 if choice["stages"] == "probe" else 2)
    assert result["test"]["n"] > 0


@pytest.mark.parametrize("choice", pairwise(), ids=name_of)
def test_each_pair_of_values_trains(choice: Choice, place: Path, tmp_path: Path) -> None:
    check(choice, place, tmp_path / name_of(choice))


@pytest.mark.parametrize("choice", list(refused()), ids=name_of)
def test_what_does_not_go_together_is_refused(choice: Choice, place: Path, tmp_path: Path) -> None:
    check(choice, place, tmp_path / name_of(choice))


@pytest.mark.slow
@pytest.mark.parametrize("choice", singles(), ids=name_of)
def test_each_head_objective_and_option_train_or_are_refused(choice: Choice, place: Path, tmp_path: Path) -> None:
    check(choice, place, tmp_path / name_of(choice))
