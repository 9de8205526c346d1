"""Values are refused in one line that says what was given, what is allowed and what to type."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.composing import composed, composed_values
from unfreeze.config.schema import Config, parse_config
from unfreeze.config.values import check_values
from unfreeze.errors import UnfreezeError
from unfreeze.results.monitor import MONITORS

BASE = composed_values("data=digits", "model=tiny")


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the default values with one changed; a key may step into lists by number."""
    values: dict[str, Any] = deepcopy(BASE)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section: Any = values
    for part in path:
        section = section[part]
    section[last] = value
    return values


def refusal_of(key: str, value: Any) -> str:
    with pytest.raises(UnfreezeError) as refusal:
        parse_config(changed(key, value))
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_the_defaults_are_accepted() -> None:
    config = parse_config(BASE)
    assert isinstance(config, Config)
    assert (config.monitor, config.monitor_mode, config.seed) == ("val/acc", "max", 0)
    assert [stage.name for stage in config.strategy.stages] == ["head", "block", "deeper"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("data.batch_size", 0, "data.batch_size: got 0, want greater than or equal to 1, such as data.batch_size=64"),
        ("data.batch_size", "many", "data.batch_size: got 'many', want a valid integer"),
        ("data.batch_size", 1.5, "data.batch_size: got 1.5, want a valid integer"),
        ("data.batch_size", True, "data.batch_size: got True, want a valid integer"),
        ("data.image_size", 4, "data.image_size: got 4, want greater than or equal to 8, such as data.image_size=96"),
        ("data.image_size", 9999, "data.image_size: got 9999, want less than or equal to 2048"),
        ("data.num_workers", -1, "data.num_workers: got -1, want greater than or equal to 0"),
        ("data.fraction", 0, "data.fraction: got 0, want greater than 0, such as data.fraction=0.25"),
        ("data.fraction", 1.5, "data.fraction: got 1.5, want less than or equal to 1"),
        ("data.fraction", float("nan"), "data.fraction: got nan, want a finite number"),
        ("data.seed", -1, "data.seed: got -1, want greater than or equal to 0"),
        ("data.val_fraction", 0.0, "data.val_fraction: got 0.0, want greater than 0"),
        ("data.val_fraction", 1.0, "data.val_fraction: got 1.0, want less than 1"),
        ("data.test_fraction", -0.1, "data.test_fraction: got -0.1, want greater than or equal to 0"),
        ("data.val_fraction", 0.95, "data.val_fraction=0.95 and data.test_fraction=0.1 leave nothing to train on"),
        ("data.name", "mnist", "data.name: got 'mnist', want 'cifar10', 'imagefolder', 'manifest' or 'digits'"),
        ("data.folds", 1, "data.folds: got 1, want greater than or equal to 2, such as data.folds=5"),
        ("data.folds", 5, "data.fold: missing beside data.folds=5; type data.fold=0, or all of them: -m data.fold=0,1"),
        ("data.fold", 1, "data.folds: missing beside data.fold=1; type data.folds=5, or leave both out"),
        ("data.fold", -1, "data.fold: got -1, want greater than or equal to 0"),
        ("data.csv", "photos.csv", "data.csv: data=digits reads no table; type data=manifest"),
        ("data.csv", 7, "data.csv: got 7, want a valid string, such as data.csv=photos.csv"),
        ("data.root", 7, "data.root: got 7, want a valid string, such as data.root=photos"),
        ("data.mirror", "yes", "data.mirror: got 'yes', want a valid boolean"),
        ("model.weights", 1, "model.weights: got 1, want a valid string, such as model.weights=DEFAULT"),
        ("model.name", None, "model.name: got None, want a valid string"),
        ("head.dropout", 1.0, "head.dropout: got 1.0, want less than 1, such as head.dropout=0.2"),
        ("head.name", "svm", "head.name: got 'svm', want 'linear', 'mlp' or 'cosine'"),
        ("strategy.stages", [], "strategy.stages: got [], want"),
        ("strategy.stages", "gradual", "strategy.stages: got 'gradual', want a valid list"),
        ("strategy.stages.0.epochs", 0, "strategy.stages[0].epochs: got 0, want greater than or equal to 1"),
        ("strategy.stages.1.epochs", "3", "strategy.stages[1].epochs: got '3', want a valid integer"),
        ("strategy.stages.0.name", "", "strategy.stages[0].name: got ''"),
        ("strategy.stages.1.train", 1.5, "strategy.stages[1].train: got 1.5, want a valid integer"),
        ("strategy.stages.1.train", True, "strategy.stages[1].train: got True, want a valid integer"),
        ("strategy.stages.1.train", None, "strategy.stages[1].train: got None"),
        ("strategy.stages.1.warmup", 1.0, "strategy.stages[1].warmup: got 1.0, want less than 1"),
        ("strategy.stages.1.warmup", -0.1, "strategy.stages[1].warmup: got -0.1, want greater than or equal to 0"),
        ("strategy.stages.2.patience", 0, "strategy.stages[2].patience: got 0, want greater than or equal to 1"),
        ("strategy.stages.2.lr", 0.0, "strategy.stages[2].lr: got 0.0, want greater than 0"),
        ("strategy.stages.2.schedule", "linear", "strategy.stages[2].schedule: got 'linear', want 'constant', 'step'"),
        ("strategy.stages.2.optimizer", "lion", "strategy.stages[2].optimizer: got 'lion', want 'adamw', 'adam' or"),
        ("strategy.stages.2.augment", "heavy", "strategy.stages[2].augment: got 'heavy', want 'none', 'light'"),
        ("strategy.stages.0.epoch", 3, "strategy.stages[0].epoch: there is no such key; want one of augment, epochs"),
        ("strategy.lr.head", 0, "strategy.lr.head: got 0, want greater than 0, such as strategy.lr.head=0.001"),
        ("strategy.lr.head", "1e-3", "strategy.lr.head: got '1e-3', want a valid number"),
        ("strategy.lr.head", float("inf"), "strategy.lr.head: got inf, want a finite number"),
        ("strategy.lr.decay", 1.5, "strategy.lr.decay: got 1.5, want less than or equal to 1"),
        ("strategy.lr.decay", 0.0, "strategy.lr.decay: got 0.0, want greater than 0"),
        ("strategy.lr.floor", 2.0, "strategy.lr.floor: got 2.0, want less than or equal to 1"),
        ("strategy.lr.groups", {"stem": -1.0}, "got -1.0, want greater than or equal to 0"),
        ("strategy.lr.groups", [1e-3, "x"], "got 'x', want a valid number"),
        ("strategy.lr.freeze_below", 2.0, "strategy.lr.freeze_below: got 2.0, want less than or equal to 1"),
        ("strategy.blocks", 0, "strategy.blocks: got 0, want greater than or equal to 1, such as strategy.blocks=2"),
        ("strategy.restore", "first", "strategy.restore: got 'first', want 'best' or 'last'"),
        ("strategy.frozen_norm", "off", "strategy.frozen_norm: got 'off', want 'eval' or 'train'"),
        ("objective.label_smoothing", 1.0, "objective.label_smoothing: got 1.0, want less than 1"),
        ("cache.dir", "", "cache.dir: got '', want a folder, which is made where there is none, or cache.dir=null"),
        ("cache.dir", __file__, f"cache.dir: got {__file__!r}, want a folder"),
        ("objective.loss", "mse", "objective.loss: got 'mse', want 'cross_entropy'"),
        ("augment.name", "heavy", "augment.name: got 'heavy', want 'none', 'light', 'standard' or 'strong'"),
        ("augment.ops", "autoaugment", "augment.ops: got 'autoaugment', want 'none', 'randaugment' or 'trivial'"),
        ("augment.erase", 1.5, "augment.erase: got 1.5, want less than or equal to 1, such as augment.erase=0.25"),
        ("augment.mixup", -1.0, "augment.mixup: got -1.0, want greater than or equal to 0, such as augment.mixup=0.2"),
        ("augment.cutmix", "on", "augment.cutmix: got 'on', want a valid number, such as augment.cutmix=1.0"),
        ("augment.mix", 2.0, "augment.mix: got 2.0, want less than or equal to 1, such as augment.mix=0.5"),
        ("optimizer.name", "lion", "optimizer.name: got 'lion', want 'adamw', 'adam' or 'sgd'"),
        ("optimizer.weight_decay", -1, "optimizer.weight_decay: got -1, want greater than or equal to 0"),
        ("optimizer.momentum", 1.0, "optimizer.momentum: got 1.0, want less than 1"),
        ("optimizer.schedule", "poly", "optimizer.schedule: got 'poly', want 'constant', 'step', 'cosine'"),
        ("trainer.max_epochs", 0, "trainer.max_epochs: got 0, want an integer of 1 or more, or null"),
        ("trainer.max_epochs", -1, "trainer.max_epochs: got -1"),
        ("trainer.max_epochs", "ten", "trainer.max_epochs: got 'ten'"),
        ("trainer.max_epochs", True, "trainer.max_epochs: got True"),
        ("trainer.gradient_clip_val", -1.0, "trainer.gradient_clip_val: got -1.0, want a number of 0 or more, or null"),
        ("trainer.gradient_clip_val", "1", "trainer.gradient_clip_val: got '1'"),
        ("trainer.gradient_clip_val", [1.0], "trainer.gradient_clip_val: got [1.0]"),
        ("seed", -1, "seed: got -1, want greater than or equal to 0, such as seed=0"),
        ("seed", 2**32, "seed: got 4294967296, want less than 4294967296"),
        ("seed", None, "seed: got None, want a valid integer"),
        ("test", "no", "test: got 'no', want a valid boolean"),
        ("monitor", "val/accuracy", "monitor: nothing logs 'val/accuracy'; want one of val/loss, val/acc"),
        ("monitor", "test/acc", "monitor: nothing logs 'test/acc'"),
        ("mode", "min", "mode: 'min' contradicts monitor=val/acc, which is better higher; leave mode out"),
        ("mode", "maximum", "mode: got 'maximum', want 'min' or 'max'"),
        ("data.bach_size", 3, "data.bach_size: there is no such key; want one of"),
        ("monitr", "val/acc", "monitr: there is no such key; want one of"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(key: str, value: Any, told: str) -> None:
    assert told in refusal_of(key, value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"decay": 2.0}, "strategy.stages[1].lr.decay: got 2.0, want less than or equal to 1"),
        ({"head": -1.0}, "strategy.stages[1].lr.head: got -1.0, want greater than 0"),
        ({"hed": 1.0}, "strategy.stages[1].lr.hed: there is no such key"),
        ({"groups": {"stem": -1.0}}, "got -1.0, want greater than or equal to 0"),
        (-1.0, "strategy.stages[1].lr: got -1.0, want greater than 0"),
        (float("nan"), "strategy.stages[1].lr: got nan, want a finite number"),
    ],
)
def test_rates_of_a_stage_are_checked_like_those_of_the_run(value: Any, told: str) -> None:
    assert told in refusal_of("strategy.stages.1.lr", value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"label": 3}, "data.columns.label: got 3, want a valid string, such as data.columns.label=species"),
        ({"label": []}, "data.columns.label: got []"),
        ({"split": True}, "data.columns.split: got True, want a valid string"),
        (
            {"imge": "path"},
            "data.columns.imge: there is no such key; want one of group, image, label, separator, split",
        ),
    ],
)
def test_columns_are_checked(value: dict[str, Any], told: str) -> None:
    values = changed("data.columns", {"image": None, "label": None, "split": False, "group": None, **value})
    values["data"] |= {"name": "manifest", "csv": "photos.csv"}
    with pytest.raises(UnfreezeError) as refusal:
        parse_config(values)
    assert told in str(refusal.value)


def test_a_fold_is_one_of_the_folds() -> None:
    values = changed("data.folds", 5)
    values["data"]["fold"] = 4
    assert parse_config(values).data.fold == 4
    values["data"]["fold"] = 5
    with pytest.raises(UnfreezeError, match=r"data.fold: got 5, want one of 0 to 4, since data.folds=5"):
        parse_config(values)


def test_several_wrong_values_are_all_told() -> None:
    values = changed("data.batch_size", 0)
    values["seed"] = "zero"
    values["optimizer"]["momentum"] = 3
    with pytest.raises(UnfreezeError) as refusal:
        parse_config(values)
    assert [part.split(":")[0] for part in str(refusal.value).split("; ")] == [
        "data.batch_size",
        "optimizer.momentum",
        "seed",
    ]


def test_a_wrong_value_is_told_once_though_several_types_were_tried() -> None:
    assert refusal_of("strategy.stages.1.train", 1.5).count("got 1.5") == 1
    assert refusal_of("strategy.lr.groups", 3).count("got 3") == 1


@pytest.mark.parametrize(
    ("key", "missing"), [("data.batch_size", "data.batch_size"), ("model.weights", "model.weights")]
)
def test_a_missing_value_is_named(key: str, missing: str) -> None:
    values = deepcopy(BASE)
    section, name = key.split(".")
    del values[section][name]
    with pytest.raises(UnfreezeError, match=f"^{missing}: missing; type {missing}=...$"):
        parse_config(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy.lr.head", 1),
        ("strategy.lr.groups", {"layer.*": 1e-4}),
        ("strategy.lr.groups", [1e-3, 0]),
        ("strategy.stages.1.train", "all"),
        ("strategy.stages.1.train", ["head", "layer4"]),
        ("strategy.stages.1.lr", 1e-4),
        ("strategy.stages.1.lr", {"decay": 0.5, "groups": {"stem": 0.0}}),
        ("data.image_size", 96),
        ("data.test_fraction", 0),
        ("trainer.max_epochs", 3),
        ("trainer.gradient_clip_val", 1),
        ("callbacks", None),
        ("logger", None),
        ("mode", "max"),
        ("seed", 2**32 - 1),
    ],
)
def test_what_is_allowed_is_accepted(key: str, value: Any) -> None:
    parse_config(changed(key, value))


@pytest.mark.parametrize("monitor", MONITORS)
def test_mode_follows_from_the_monitor_and_its_contradiction_is_refused(monitor: str) -> None:
    values = changed("monitor", monitor)
    assert parse_config(values).monitor_mode == ("min" if monitor == "val/loss" else "max")
    values["mode"] = "max" if monitor == "val/loss" else "min"
    with pytest.raises(UnfreezeError, match=f"contradicts monitor={monitor}"):
        parse_config(values)


class TestScratch:
    def test_it_implies_random_weights(self) -> None:
        config = check_values(composed("data=digits", "strategy=scratch"), ["data=digits", "strategy=scratch"])
        assert config.model.weights is None

    @pytest.mark.parametrize("typed", ["model.weights=DEFAULT", "model.weights=IMAGENET1K_V1"])
    def test_weights_typed_beside_it_are_refused(self, typed: str) -> None:
        overrides = ["data=digits", "strategy=scratch", typed]
        with pytest.raises(
            UnfreezeError, match=r"beside strategy=scratch, which starts from random weights; leave one"
        ):
            check_values(composed(*overrides), overrides)

    def test_null_typed_beside_it_is_no_contradiction(self) -> None:
        overrides = ["data=digits", "strategy=scratch", "model.weights=null"]
        assert check_values(composed(*overrides), overrides).model.weights is None

    def test_another_strategy_keeps_its_weights(self) -> None:
        assert check_values(composed("data=digits"), ["data=digits"]).model.weights == "DEFAULT"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=imagefolder"], "data.root: missing; type data.root=..."),
        (["data=manifest"], "data.csv: missing; type data.csv=..."),
        (["data=digits", "model=torchvision"], "model.name: missing; type model.name=..."),
        (["data=imagefolder", "data.root=/nowhere/photos"], "data.root: no folder '/nowhere/photos'. Want a folder of"),
    ],
)
def test_what_must_be_typed_is_named(overrides: list[str], told: str) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        check_values(composed(*overrides), overrides)
    assert str(refusal.value).startswith(told)


def test_values_are_refused_before_torch_is_imported() -> None:
    program = """
import sys
from tests.composing import composed
from unfreeze.config.values import check_values
from unfreeze.errors import UnfreezeError
try:
    check_values(composed("data=digits", "data.batch_size=0"), [])
except UnfreezeError:
    print(sorted({"torch", "lightning", "torchvision", "sklearn"} & set(sys.modules)))
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert told.stdout.strip() == "[]"
