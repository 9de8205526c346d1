"""Runs of train.py on networks and heads of other kinds: trained in stages, tested, and loaded again."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.launch import train
from unfreeze.inference.checkpoint import load_classifier

REQUEST = [
    "data=digits",
    "data.fraction=0.1",
    "strategy.stages=[{name: head, train: 1, epochs: 1, augment: none}, {name: block, train: 2, epochs: 2}]",
    "hydra.run.dir=run",
]
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize(
    ("typed", "head"),
    [
        (["model=tiny", "head=mlp", "head.hidden=7", "objective.loss=focal"], "MLPHead(1024, 10)"),
        (["model=tiny", "model.in_chans=1", "head=cosine"], "CosineHead(1024, 10)"),
        pytest.param(
            ["model=timm", "model.name=test_resnet", "model.weights=null", "data.image_size=64", "model.in_chans=1"],
            "Linear(96, 10)",
            marks=needs_timm,
        ),
        pytest.param(
            ["model=timm", "model.name=test_vit", "model.weights=null", "data.image_size=64", "head=mlp"],
            "MLPHead(64, 10)",
            marks=needs_timm,
        ),
    ],
)
def test_other_networks_and_heads_run_as_any(typed: list[str], head: str, tmp_path: Path) -> None:
    done = train([*REQUEST, *typed], tmp_path)
    assert done.code == 0, done.err
    assert head in done.out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert [stage["name"] for stage in result["stages"]] == ["head", "block"]
    assert result["stages"][0]["trainable"] < result["stages"][1]["trainable"] < result["stages"][1]["total"]
    assert load_classifier(tmp_path / "run").network is not None
