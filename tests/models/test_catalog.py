"""`unfreeze models`: columns, patterns, and cached weights."""

import json
from pathlib import Path

import pytest

from tests.launch import unfreeze
from unfreeze.errors import UnfreezeError
from unfreeze.models.catalog import list_networks
from unfreeze.models.spec import ModelSpec
from unfreeze.models.torchvision_models import classifier_names, find_torchvision_model


def test_all_of_torchvisions_classifiers_are_there_as_they_are_published() -> None:
    rows = {row.name: row for row in list_networks(source="torchvision")}
    assert rows.keys() == set(classifier_names())
    assert rows["resnet50"].parameters == 25_557_032
    assert rows["resnet50"].gmacs == pytest.approx(4.09, abs=0.05)
    assert rows["resnet50"].top1 == pytest.approx(80.858)
    assert rows["vit_b_16"].image_size == 224
    for name in ("mobilenet_v2", "squeezenet1_1", "swin_t"):
        skeleton = find_torchvision_model(ModelSpec(name)).skeleton()
        assert rows[name].parameters == sum(parameter.numel() for parameter in skeleton.parameters())


def test_timms_are_there_with_their_tags() -> None:
    rows = {row.name: row for row in list_networks(source="timm")}
    assert len(rows) > 1000
    assert rows["resnet18.a1_in1k"].parameters == 11_689_512
    assert "convnext_tiny.fb_in1k" in rows


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("resnet10", {"resnet101"}), ("vit_?_16", {"vit_b_16", "vit_l_16"}), ("mobilenet_v2", {"mobilenet_v2"})],
)
def test_a_part_of_a_name_or_a_pattern_matches(pattern: str, names: set[str]) -> None:
    found = {row.name for row in list_networks(pattern, source="torchvision")}
    assert names <= found
    assert found < set(classifier_names())


def test_what_matches_nothing_is_refused_with_what_is_near(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unfreeze(["models", "resnet19x"], monkeypatch) == 2
    assert "resnet" in capsys.readouterr().err
    with pytest.raises(UnfreezeError, match="want one of torchvision, timm"):
        list_networks(source="keras")


def test_weights_on_this_machine_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not any(row.is_cached for row in list_networks("resnet18"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    (tmp_path / "hub" / "models--timm--resnet18.a2_in1k" / "refs").mkdir(parents=True)  # was not downloaded to the end
    snapshot = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "491b427"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert {row.name for row in list_networks("resnet18") if row.is_cached} == {"resnet18", "resnet18.a1_in1k"}


def test_it_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert unfreeze(["models", "resnet50", "--source", "torchvision"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "25.6 M" in out
    assert "80.9" in out
    assert unfreeze(["models", "resnet50", "--source", "torchvision", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["parameters"] == 25_557_032
