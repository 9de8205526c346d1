"""The precision of a run: typed, saved, or chosen by the rule."""

import json
from pathlib import Path

import pytest
import torch

from tests.composing import composed
from tests.launch import train
from tests.training.conftest import make_classifier
from unfreeze.config.schema import Config
from unfreeze.config.values import check_values
from unfreeze.errors import UnfreezeError
from unfreeze.runs.builders.precision import find_precision, with_precision
from unfreeze.runs.builders.trainer_arguments import trainer_arguments
from unfreeze.training.precision import rule
from unfreeze.training.precision.precision import Precision

CPU = torch.device("cpu")
BF16 = Precision(precision="bf16-mixed", channels_last=False, note="chosen elsewhere")


def config_of(cache: Path, *typed: str) -> Config:
    overrides = ["data=digits", "model=tiny", "model.weights=null", f"cache.dir={cache}", *typed]
    return check_values(composed(*overrides), overrides)


def find(config: Config, *, device: torch.device = CPU) -> Precision:
    return find_precision(config, classifier=make_classifier(10), device=device)


def test_auto_is_the_rule_s_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr(rule, "depthwise_share", lambda network, shape: 0.0)
    assert find(config_of(tmp_path, "strategy=gradual")).precision == "bf16-mixed"
    monkeypatch.setattr(rule, "cpu_flags", frozenset)
    assert find(config_of(tmp_path, "strategy=gradual")).precision == "32-true"


@pytest.mark.parametrize(
    ("typed", "precision"),
    [("32", "32-true"), ("32-true", "32-true"), ("16-mixed", "16-mixed"), ("bf16-mixed", "bf16-mixed")],
)
def test_what_was_typed_holds(typed: str, precision: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, f"trainer.precision={typed}")
    found = find(config)
    assert found == Precision(precision=precision)
    assert trainer_arguments(with_precision(config, found))["precision"] == precision


def test_a_resumed_run_takes_the_precision_that_was_saved(tmp_path: Path) -> None:
    (tmp_path / "compute.json").write_text(json.dumps(BF16.to_dict()))
    assert find(config_of(tmp_path, f"resume={tmp_path}")) == BF16
    typed = find(config_of(tmp_path, f"resume={tmp_path}", "trainer.precision=32"))
    assert typed == Precision("32-true", channels_last=False)


def test_the_verdict_of_a_probe_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    probed = {
        "speed": {"bf16 contiguous": 1.9},
        "batch_size": 64,
        "machine": "elsewhere",
        "threads": 2,
        "torch": "2.9",
    }
    (tmp_path / "compute.json").write_text(json.dumps({**BF16.to_dict(), **probed}))
    assert find(config_of(tmp_path, f"resume={tmp_path}")) == BF16


@pytest.mark.parametrize(
    "content", ["", "[]", '{"precision": "8"}', '{"precision": "bf16-mixed", "channels_last": true, "note": 1}']
)
def test_a_damaged_file_counts_as_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "cpu_flags", frozenset)
    (tmp_path / "compute.json").write_text(content)
    assert find(config_of(tmp_path, f"resume={tmp_path}")).precision == "32-true"


def test_lightning_is_never_asked_for_auto(tmp_path: Path) -> None:
    arguments = trainer_arguments(config_of(tmp_path))
    assert arguments["precision"] == "32-true"
    assert not {"compile", "tf32"} & arguments.keys()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("trainer.precision=64", "trainer.precision: got 64, want one of auto, 32, 32-true, 16-mixed, bf16-mixed"),
        ("trainer.compile=1", "trainer.compile: got 1, want true or false"),
        ("trainer.compile=null", "trainer.compile: got None, want true or false"),
        ("trainer.tf32=high", "trainer.tf32: got 'high', want true, null or false"),
    ],
)
def test_other_values_are_refused(typed: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError) as refused:
        config_of(tmp_path, typed)
    assert str(refused.value) == told


def test_a_run_saves_its_precision_and_a_resumed_one_is_held_to_it(tmp_path: Path) -> None:
    """In the other precision from the file: the run, killed before its first checkpoint, was asked for `auto`."""
    request = ["data=digits", "data.fraction=0.05", "data.image_size=32", "model=tiny", "model.weights=null"]
    request += ["strategy=feature_extraction", "trainer.max_epochs=2", "trainer.accelerator=cpu", "cache.dir=cache"]
    kill = ["+callbacks.kill._target_=tests.killing.KillAt", "+callbacks.kill.step=1"]
    train([*request, *kill, "hydra.run.dir=run"], tmp_path)
    file = tmp_path / "run" / "compute.json"
    saved = Precision.from_dict(json.loads(file.read_text()))
    other = "32-true" if saved.precision == "bf16-mixed" else "bf16-mixed"
    file.write_text(json.dumps({**saved.to_dict(), "precision": other}))
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert f"1 x cpu · {other} · " in resumed.out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["compute"]["precision"] == other
