"""Every file in conf/ composes, is called what it names, and passes the schema."""

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests.composing import CONF, composed
from tests.training.conftest import make_classifier
from unfreeze.config.values import check_values
from unfreeze.data.augment.presets import PRESETS, AugmentName
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.builtin import digits_source
from unfreeze.errors import UnfreezeError
from unfreeze.models.architecture import find_architecture
from unfreeze.runs.builders.data import build_data
from unfreeze.runs.builders.module import build_module
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage
from unfreeze.training.plan.resolve import resolve_plan

FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml") if path.parent != CONF)
HYDRA_FILES = [file for file in FILES if file.parts[0] == "hydra"]
OWN_FILES = [file for file in FILES if file.parts[0] != "hydra"]
NEEDS_A_VALUE = {
    "data/imagefolder": "data.root",
    "data/manifest": "data.csv",
    "model/hub": "model.name",
    "model/timm": "model.name",
    "model/torchvision": "model.name",
    "objective/distill": "objective.teacher",
    "experiment/pretrain_tiny": "data.root",
}
NEEDS_AN_EXTRA = {"sweep/optuna": "hydra_plugins.hydra_optuna_sweeper"}


def choice_of(file: Path) -> str:
    return f"{file.parent.as_posix()}={file.name}"


def content_of(file: Path) -> dict[str, object]:
    content = yaml.safe_load((CONF / file).with_suffix(".yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def skip_without_extra(file: Path) -> None:
    module = NEEDS_AN_EXTRA.get(file.as_posix())
    if module is not None and (find_spec(module.partition(".")[0]) is None or find_spec(module) is None):
        pytest.skip(f"needs {module}")


@pytest.mark.parametrize("file", OWN_FILES, ids=str)
def test_every_file_composes_and_passes_the_schema(file: Path) -> None:
    skip_without_extra(file)
    overrides = [choice_of(file)] if file.parts[0] in ("data", "experiment") else ["data=digits", choice_of(file)]
    raw = composed(*overrides)
    if (missing := NEEDS_A_VALUE.get(file.as_posix())) is None:
        config = check_values(raw, overrides)
        assert config.monitor == "val/acc"
    else:
        with pytest.raises(UnfreezeError, match=f"^{missing}: missing; type {missing}=...$"):
            check_values(raw, overrides)


@pytest.mark.parametrize("file", HYDRA_FILES, ids=str)
def test_the_settings_of_hydra_compose(file: Path) -> None:
    group, name = (file.parent.as_posix(), file.name) if len(file.parts) > 2 else ("hydra", file.name)
    config = composed("data=digits", with_hydra=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(choices, dict)
    assert choices[group] == name


@pytest.mark.parametrize("file", OWN_FILES, ids=str)
def test_a_file_is_called_what_it_names(file: Path) -> None:
    content = content_of(file)
    if file.parts[0] in ("data", "model", "strategy", "augment", "optimizer", "objective", "head"):
        assert content["name"] in (file.name, "???")
    else:
        assert content.get("name", file.name) == file.name


@pytest.mark.parametrize("file", [file for file in OWN_FILES if file.parts[0] == "model"], ids=str)
def test_every_model_is_one_that_can_be_built(file: Path) -> None:
    name = str(content_of(file)["name"])
    if name != "???":
        assert find_architecture(name).name == name


@pytest.mark.parametrize("file", [file for file in OWN_FILES if file.parts[0] in ("sweep", "experiment")], ids=str)
def test_an_experiment_says_how_it_is_run_in_its_header(file: Path) -> None:
    text = (CONF / file).with_suffix(".yaml").read_text(encoding="utf-8")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert header[0] == "# @package _global_"
    assert any(
        f"python train.py {'-m ' if file.parts[0] == 'sweep' else ''}{choice_of(file)}" in line for line in header
    )


GROUPS = [Group(name, 10) for name in ("head", "layer4", "layer3", "layer2", "layer1", "stem")]


@cache
def plan_of(strategy: str, *overrides: str) -> Plan:
    typed = ["data=digits", f"strategy={strategy}", *overrides]
    config = check_values(composed(*typed), typed)
    return resolve_plan(
        [Stage(**stage.model_dump()) for stage in config.strategy.stages],
        GROUPS,
        rates=Rates(**config.strategy.lr.model_dump()),
    )


@pytest.mark.parametrize(
    ("strategy", "live"),
    [
        ("feature_extraction", [1]),
        ("partial", [2]),
        ("gradual", [1, 2, 3]),
        ("finetune", [1, 6]),
        ("scratch", [6]),
        ("llrd", [6]),
    ],
)
def test_a_strategy_unfreezes_as_many_groups_as_it_says(strategy: str, live: list[int]) -> None:
    assert [len(stage.groups) for stage in plan_of(strategy).stages] == live


def test_the_rates_of_the_strategies() -> None:
    assert plan_of("gradual").stages[2].rates == pytest.approx((1e-3, 1e-4, 1e-5))
    assert plan_of("finetune").stages[1].rates == pytest.approx((1e-3, *[4e-4] * 5))
    assert plan_of("scratch").stages[0].rates == pytest.approx([1e-3] * 6)
    assert plan_of("llrd").stages[0].rates == pytest.approx([1e-3 * 0.65**depth for depth in range(6)])


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_partial_trains_the_head_and_some_blocks(blocks: int) -> None:
    assert len(plan_of("partial", f"strategy.blocks={blocks}").stages[0].groups) == blocks + 1


def test_a_head_alone_is_trained_on_images_as_evaluation_sees_them() -> None:
    for strategy in ("feature_extraction", "gradual", "finetune"):
        assert plan_of(strategy).stages[0].augment == "none"


@pytest.mark.parametrize(
    "override",
    [
        "strategy.stages=[{name: head, train: 1, epochs: 3}, {name: all, train: all, epochs: 5, patience: 2}]",
        "strategy.lr.groups={stem: 1e-5}",
        "strategy.lr.groups=[1e-3, 1e-4, 1e-5]",
        "trainer.gradient_clip_val=1.0",
        "report=false",
        "augment.ops=trivial",
        "augment.mixup=0.2",
        "augment.erase=0",
        "head.dropout=0.2",
    ],
)
def test_what_the_help_shows_can_be_typed(override: str) -> None:
    typed = ["data=digits", override]
    check_values(composed(*typed), typed)


@pytest.mark.parametrize("name", PRESETS)
def test_an_augmentation_is_its_preset_unless_a_knob_is_turned(name: AugmentName) -> None:
    def built(*typed: str) -> object:
        config = check_values(composed("data=digits", f"augment={name}", *typed), [])
        return build_module(config, make_classifier(10), build_data(ImageDataModule, config, digits_source())).augment

    assert built() == PRESETS[name]
    expected = replace(PRESETS[name], ops="trivial", mixup=0.3, cutmix=0.0, mix=0.7, erase=0.1)
    knobs = ("ops=trivial", "mixup=0.3", "cutmix=0", "mix=0.7", "erase=0.1")
    assert built(*(f"augment.{knob}" for knob in knobs)) == expected


@pytest.mark.parametrize(("monitor", "direction"), [("val/acc", "maximize"), ("val/loss", "minimize")])
def test_a_search_goes_the_way_of_its_monitor(monitor: str, direction: str) -> None:
    skip_without_extra(Path("sweep/optuna"))
    config = composed("data=digits", "sweep=optuna", f"monitor={monitor}", with_hydra=True)
    assert config.hydra.sweeper.direction == direction
    assert config.search is True


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=tiny", "strategy=finetune"], "tiny-finetune"),
        (["experiment=demo"], "demo"),
    ],
)
def test_a_run_is_called_after_its_time_and_what_it_is(overrides: list[str], name: str) -> None:
    config = composed("data=digits", *overrides, with_hydra=True)
    assert config.hydra.run.dir.startswith("outputs/")
    assert config.hydra.run.dir.endswith(f"-{name}")
