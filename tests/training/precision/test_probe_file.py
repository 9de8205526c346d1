"""Verdicts that later runs find, and content that they ignore."""

import json
from pathlib import Path

import pytest
import torch

from unfreeze.training.precision.precision import Verdict
from unfreeze.training.precision.probe_file import ProbeFile, describe_machine, probe_key

VERDICT = Verdict(speed={"fp32 channels_last": 1.0}, batch_size=8, machine="a CPU", threads=2, torch="2.15.0")
FACTS = {
    "machine": "a CPU",
    "threads": 2,
    "architecture": "resnet18",
    "live": ("head", "layer4"),
    "image_px": 96,
    "batch_size": 64,
}


def test_what_was_kept_is_found_by_others(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "probes.json"
    ProbeFile(path).keep("a", VERDICT)
    ProbeFile(path).keep("b", Verdict(note="another"))
    assert ProbeFile(path).find("a") == VERDICT
    assert ProbeFile(path).find("b") == Verdict(note="another")
    assert ProbeFile(path).find("c") is None
    assert {file.name for file in path.parent.iterdir()} <= {"probes.json", "probes.json.lock"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "\x00\xff",
        "[]",
        '{"a": 1}',
        '{"layout": 2, "verdicts": {"a": {}}}',
        '{"layout": 1, "verdicts": []}',
        '{"layout": 1, "verdicts": {"a": {"precision": "bf16-mixed"}}}',
    ],
)
def test_foreign_content_is_ignored_and_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "probes.json"
    path.write_text(content, encoding="latin-1")
    assert ProbeFile(path).find("a") is None
    ProbeFile(path).keep("a", VERDICT)
    assert ProbeFile(path).find("a") == VERDICT


def test_a_place_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ProbeFile(tmp_path / "file" / "probes.json").keep("a", VERDICT)
    (tmp_path / "folder" / "probes.json").mkdir(parents=True)
    ProbeFile(tmp_path / "folder" / "probes.json").keep("a", VERDICT)
    assert ProbeFile(tmp_path / "folder" / "probes.json").find("a") is None


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("machine", "a GPU"),
        ("threads", 1),
        ("architecture", "resnet50"),
        ("live", ("head",)),
        ("image_px", 224),
        ("batch_size", 32),
    ],
)
def test_a_verdict_holds_for_what_was_measured_alone(fact: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    key = probe_key(**FACTS)  # type: ignore[arg-type]
    assert probe_key(**{**FACTS, "live": ("layer4", "head")}) == key  # type: ignore[arg-type]
    assert probe_key(**{**FACTS, fact: value}) != key  # type: ignore[arg-type]
    monkeypatch.setattr(torch, "__version__", "3.0.0")
    assert probe_key(**FACTS) != key  # type: ignore[arg-type]


def test_a_machine_has_a_name_that_can_be_written() -> None:
    assert json.dumps(describe_machine(torch.device("cpu"))) != '""'
