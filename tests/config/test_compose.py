"""What does not compose is refused in one line: what was typed, the nearest names, what may be typed."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser

from tests.composing import CONF
from unfreeze.config.compose import compose_config
from unfreeze.config.overrides import _FLAGS
from unfreeze.errors import UnfreezeError

REFUSALS = [
    (["data=digit"], "data: no choice 'digit'; nearest: digits; want one of cifar10, digits, imagefolder, manifest"),
    (["optimizer=rmsprop"], "optimizer: no choice 'rmsprop'; want one of adam, adamw, sgd"),
    (["hydra/launcher=slurm"], "hydra/launcher: no choice 'slurm'; want one of basic"),
    (["model=resnet19"], "model: no choice 'resnet19'; nearest: resnet18, "),
    (
        ["model=vgg11"],
        "model: no choice 'vgg11', but torchvision has such a network; type model=torchvision model.name=",
    ),
    (["model=vit_tiny_patch16_224"], "model: no choice 'vit_tiny_patch16_224', but timm has such a network"),
    (["data="], "data: a group needs a choice; want one of cifar10,"),
    (["data=null"], "data: a group needs a choice; want one of cifar10,"),
    (["+model=tiny"], "+model: the group has a choice already; type model=... without the +"),
    (["data@images=digits"], "data@images: a group is chosen by its name alone; type data=..."),
    (
        ["data=digits,cifar10"],
        "data: got 'digits,cifar10', several values; type -m for a job with each, or data=[digits",
    ),
    (["modle=tiny"], "modle: there is no such key; want one of mode, model, "),
    (["data.image_sise=64"], "data.image_sise: there is no such key; want one of data.image_size, "),
    (["batch_size=8"], "batch_size: there is no such key; want one of data.batch_size; "),
    (["sead=1", "model=tiny"], "sead: there is no such key; want one of seed, "),
    (["hydra.swep.dir=x"], "hydra.swep.dir: there is no such key; want one of hydra.sweep.dir, "),
    (["data.batch_size.x=1"], "data.batch_size.x: there is no such key; want one of data.batch_size, "),
    (["~data.rot"], "data.rot: there is no such key; want one of data.root, "),
    (["qqqq=1"], "qqqq: there is no such key; want one of data, model, "),
    (["head.hidden=64"], "head.hidden: not a key of the head that is chosen; type head=mlp or multitask beside it"),
    (
        ["data.columns.label=x"],
        "data.columns.label: not a key of the data that is chosen; type data=manifest beside it",
    ),
    (["+data.batch_size=8"], "+data.batch_size: the key is there already; type data.batch_size=... without the +"),
    (["strategy.stages.1={a: 1}"], "strategy.stages.1: the items of a list are typed together; type strategy.stages="),
    (["strategy.stages=[{name: a"], "strategy.stages: '[{name: a' can't be parsed: a { is not closed; put a value"),
    (["strategy.stages=[{name: a]"], "strategy.stages: '[{name: a]' can't be parsed: a ] closes no [; put a value"),
    (["monitor='val"], """monitor: "'val" can't be parsed: a ' is not closed; put a value"""),
    (["monitor=val(acc)"], "monitor: 'val(acc)' can't be parsed: it has signs that the grammar of overrides reserves;"),
]


@pytest.mark.parametrize(("typed", "message"), REFUSALS, ids=[typed[0] for typed, _ in REFUSALS])
def test_what_does_not_compose_is_refused_in_one_line(typed: list[str], message: str) -> None:
    with pytest.raises(UnfreezeError) as told:
        compose_config(typed)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


def test_choices_of_an_own_folder_are_among_those_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "birds.yaml").write_text("defaults: [digits, _self_]\nname: digits\n")
    assert compose_config(["data=birds"], tmp_path).data.name == "digits"
    with pytest.raises(UnfreezeError, match="nearest: birds; want one of birds, cifar10"):
        compose_config(["data=bird"], tmp_path)


@pytest.mark.parametrize("name", ["my configs, 2", "[own] (1)", "it's a=b"])
def test_an_own_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "birds.yaml").write_text("defaults: [digits, _self_]\nname: digits\n")
    assert compose_config(["data=birds"], folder).data.name == "digits"


def test_an_own_config_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "birds.yaml").write_text("name: [digits\n")
    with pytest.raises(UnfreezeError) as told:
        compose_config(["data=birds"], tmp_path)
    assert "\n" not in str(told.value)
    assert "birds.yaml" in str(told.value)


def test_the_flags_are_those_of_hydra() -> None:
    options = {flag: action for action in get_args_parser()._actions for flag in action.option_strings}
    assert {flag: action.nargs != 0 for flag, action in options.items()} == _FLAGS


def test_every_folder_of_choices_has_one_file_at_least() -> None:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        assert all(list(folder.rglob("*.yaml")) for folder in CONF.iterdir() if folder.is_dir())
