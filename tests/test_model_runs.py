"""Runs of train.py on networks and heads of other kinds: trained in stages, tested, and loaded again."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.launch import train
from unfreeze.models.checkpoint import load_classifier

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
        pytest.param(["model=tiny", "model.in_chans=1", "head=cosine"], "CosineHead(1024, 10)", marks=pytest.mark.slow),
        pytest.param(
            ["model=timm", "model.name=test_resnet", "model.weights=null", "data.image_size=64", "model.in_chans=1"],
            "Linear(96, 10)",
            marks=needs_timm,
        ),
        pytest.param(
            [
                *("model=timm", "model.name=test_vit", "model.weights=null", "model.options={drop_path_rate: 0.1}"),
                *("data.image_size=64", "head=mlp"),
            ],
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


@pytest.mark.parametrize(
    "model",
    [["model=tiny"], pytest.param(["model=timm", "model.name=test_vit", "model.weights=null"], marks=needs_timm)],
)
def test_images_of_five_bands_are_trained_on_as_any(model: list[str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, bright in (("field", 200), ("wood", 50)):
        (tmp_path / "bands" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.normal(100, 20, (24, 24, 5))
            pixels[..., 4] += bright - 100  # what tells them apart is in a band that no picture has
            np.save(tmp_path / "bands" / name / f"{number}.npy", pixels.clip(0, 255).astype(np.uint8))
    stages = "strategy.stages=[{name: head, train: 1, epochs: 6, augment: none}, {name: block, train: 2, epochs: 1}]"
    typed = ["data=imagefolder", "data.root=bands", "data.batch_size=8", "data.image_size=64", "model.in_chans=5"]
    typed += ["augment=strong", "strategy.lr.head=0.01", stages, "hydra.run.dir=run"]
    done = train([*typed, *model], tmp_path)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"]["acc"] == 1
    classifier = load_classifier(tmp_path / "run")
    images = torch.from_numpy(np.load(tmp_path / "bands" / "field" / "0.npy")).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert classifier.network(classifier.preprocessing(images)).argmax().item() == 0


def test_what_has_three_bands_is_not_read_as_five(tmp_path: Path) -> None:
    done = train(["data=digits", "model=tiny", "model.in_chans=5", "hydra.run.dir=run"], tmp_path)
    assert done.code == 2
    assert "model.in_chans: got 5, but the images of data=digits are red, green and blue; want 1 or 3" in done.err


def test_a_run_does_not_go_on_with_another_average(tmp_path: Path) -> None:
    end = [f"+callbacks.end.{key}" for key in ("_target_=tests.killing.KillAt", "step=4", "name=SIGTERM")]
    assert train([*REQUEST, "model=tiny", "callbacks=ema", *end], tmp_path).code == 143
    for other in ("callbacks.average.decay=0.5", "callbacks=swa", "callbacks=default"):
        resumed = train(["resume=run", "callbacks.end=null", other], tmp_path)
        assert resumed.code == 2
        assert "resume: callbacks.average was" in resumed.err
        assert len(resumed.err.strip().splitlines()) == 1


def test_a_run_does_not_go_on_with_another_head(tmp_path: Path) -> None:
    end = [f"+callbacks.end.{key}" for key in ("_target_=tests.killing.KillAt", "step=4", "name=SIGTERM")]
    assert train([*REQUEST, "model=tiny", *end], tmp_path).code == 143
    resumed = train(["resume=run", "callbacks.end=null", "head=cosine"], tmp_path)
    assert resumed.code == 2
    assert "resume: head was 'linear', is 'cosine'" in resumed.err
    assert "Group(" not in resumed.err
