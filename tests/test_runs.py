"""Whole runs from the command line: awkward data, awkward paths, a loss that is not finite, what is left behind."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launch import ROOT, train
from tests.test_refusals import write_images
from unfreeze.data.store.framing import Resize
from unfreeze.models.checkpoint import load_classifier
from unfreeze.training.plan.plan import Plan

TINY = [
    "model=tiny",
    "model.weights=null",
    "data.image_size=32",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "hydra.run.dir=run",
]
TWO_STAGES = ["strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 1}]"]
FIGURES = {"acc", "acc_top5", "acc_balanced", "precision_macro", "recall_macro", "f1_macro", "ece", "n", "per_class"}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three classes whose colours differ, without splits."""
    folder = tmp_path_factory.mktemp("data") / "my photos (1) [x]=~é"
    for seed, name in enumerate(("ant", "bee colony", "cat=1")):
        write_images(folder / name, 12, seed)
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    request = [*TINY, *TWO_STAGES, "data=imagefolder", f"data.root={photos}", "data.batch_size=8"]
    request[request.index("hydra.run.dir=run")] = "hydra.run.dir=runs/a run [1]=x"
    done = train(request, folder)
    assert done.code == 0, done.err
    assert "runs/a run [1]=x" in done.out.splitlines()[-1]
    return folder / "runs" / "a run [1]=x"


def test_a_run_directory_holds_what_the_design_says(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "overrides.yaml",
        "plan.txt",
        "metrics.csv",
        "stages.json",
        "result.json",
        "train.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/learning_curves.png",
    }


def test_result_is_complete(finished: Path) -> None:
    got = result(finished)
    assert got["schema"] == 1
    assert got["status"] == "completed"
    assert got["reason"] is None
    assert got["monitor"] == "val/acc"
    assert got["test"].keys() >= FIGURES
    assert got["test"]["acc_top5"] is None
    assert set(got["test"]["per_class"]) == {"ant", "bee colony", "cat=1"}
    assert got["test"]["n"] == got["data"]["test"]
    assert got["val"].keys() >= {"acc", "loss", "f1_macro"}
    assert [stage["name"] for stage in got["stages"]] == ["head", "all"]
    assert got["stages"][0]["trainable"] < got["stages"][1]["trainable"] == got["stages"][1]["total"]
    assert "data=imagefolder" in got["overrides"]
    assert len(got["data"]["fingerprint"]) == 32
    rows = list(csv.DictReader((finished / "metrics.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["val/acc"]))
    assert got["best"] == {"epoch": int(best["epoch"]), "stage": best["stage"]}


def test_checkpoints_load_offline_without_conf_and_hold_plain_values(finished: Path, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    try:
        classifier = load_classifier(finished)
        checkpoint = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    finally:
        os.chdir(ROOT)
    assert classifier.classes == ("ant", "bee colony", "cat=1")
    assert classifier.preprocessing.crop_px == 32
    plan = Plan.from_dict(checkpoint["callbacks"]["StagedUnfreezing"]["plan"])
    assert [stage.name for stage in plan.stages] == ["head", "all"]
    images = torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        logits = classifier.network(classifier.preprocessing(images))
    assert logits.shape == (4, 3)


def test_the_best_checkpoint_gives_the_figures_of_the_test(finished: Path, photos: Path) -> None:
    """Computed anew from the files, apart from any trainer."""
    from unfreeze.data.sources.imagefolder import folder_source
    from unfreeze.data.splits.splits import build_splits
    from unfreeze.data.store.store import build_store

    source = folder_source(photos)
    splits = build_splits(source.splits, source.labels, val_fraction=0.1, test_fraction=0.1)
    classifier = load_classifier(finished)
    store = build_store(source, Resize.of(classifier.preprocessing))
    with torch.no_grad():
        logits = classifier.network(classifier.preprocessing(store.read(splits.test)))
    accuracy = (logits.argmax(1).numpy() == source.labels[splits.test]).mean()
    assert result(finished)["test"]["acc"] == pytest.approx(accuracy)


def test_tensorboard_has_scalars_per_group_and_final_metrics(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"train/loss", "train/acc", "val/loss", "val/acc", "lr/head", "lr/stem", "stage/index"}
    assert tags >= {"stage/trainable_parameters", "train/images_per_second"}
    assert [event.value for event in events.Scalars("stage/index")] == [0, 1]
    rows = list(csv.DictReader((finished / "metrics.csv").read_text().splitlines()))
    recorded = [(int(row["step"]), pytest.approx(float(row["val/acc"]))) for row in rows]
    assert [(event.step, event.value) for event in events.Scalars("val/acc")] == recorded
    assert [event.step for event in events.Scalars("train/loss")] == [step for step, _ in recorded]
    final = events.Scalars("final/val_acc")[-1].value
    assert final == pytest.approx(result(finished)["val"]["acc"])
    assert "learning_curves" in events.Tags()["images"]
    assert any("hparams" in tag for tag in events.summary_metadata)


@pytest.mark.parametrize(
    ("layout", "batch_size"),
    [
        pytest.param({"a": 2, "b": 2}, 64, id="two classes of two images, one batch"),
        pytest.param({"train/a": 3, "train/b": 2, "val/a": 1, "test/b": 1}, 4, id="a last batch of one image"),
        pytest.param({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, 1, id="one image per class, no test split"),
        pytest.param({f"c{i:03d}": 3 for i in range(200)}, 64, id="200 classes"),
    ],
)
def test_small_and_wide_data(layout: dict[str, int], batch_size: int, tmp_path: Path) -> None:
    for seed, (name, count) in enumerate(layout.items()):
        write_images(tmp_path / "photos" / name, count, seed)
    request = [*TINY, *TWO_STAGES, "data=imagefolder", "data.root=photos", f"data.batch_size={batch_size}"]
    request[request.index("data.image_size=32")] = "data.image_size=64"
    if "train/a" in layout and "test/b" not in layout:
        request.append("data.test_fraction=0")
    done = train(request, tmp_path)
    assert done.code == 0, done.err
    got = result(tmp_path / "run")
    assert got["status"] == "completed"
    assert (got["test"] is None) == ("data.test_fraction=0" in request)


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_last_good_checkpoint(
    photos: Path, tmp_path: Path
) -> None:
    stages = "[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 3, lr: 100, optimizer: sgd}]"
    request = [*TINY, "data=imagefolder", f"data.root={photos}", f"strategy.stages={stages}", "data.batch_size=4"]
    request += ["strategy.lr={decay: 1.0, floor: 1.0}", "optimizer.schedule=constant", "augment=none"]
    done = train([*request, "optimizer.weight_decay=10"], tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: the training loss is not finite in epoch")
    assert done.err.count("\n") == 1
    got = result(tmp_path / "run")
    assert got["status"] == "failed"
    assert "not finite" in got["reason"]
    for name in ("best.ckpt", "last.ckpt"):
        state = torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


def test_a_loss_that_is_not_finite_from_the_start_promises_nothing(photos: Path, tmp_path: Path) -> None:
    """There is no checkpoint to go on from, and a resume would meet the same loss."""
    request = [*TINY, "data=imagefolder", f"data.root={photos}", "data.batch_size=4", "augment=none"]
    stages = "[{name: all, train: all, epochs: 1, lr: 100, optimizer: sgd}]"
    rates = ["strategy.lr={decay: 1.0, floor: 1.0}", "optimizer.schedule=constant", "optimizer.weight_decay=10"]
    done = train([*request, *rates, f"strategy.stages={stages}"], tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert re.search(
        r"not finite in epoch 1, since its batch \d of 7; weights that are not finite: head "
        r"\(lr 100\).*\. No checkpoint was written; start a new run with a lower rate",
        done.err,
    )
    assert "resume" not in done.err + done.out
    assert result(tmp_path / "run")["reason"] == done.err.removeprefix("error: ").strip()


def test_the_test_split_does_not_reach_the_model_before_the_fit_ended(tmp_path: Path) -> None:
    """With other test images, all that training leaves is the same."""
    left = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        for name in ("train/a", "train/b", "val/a", "val/b"):
            write_images(folder / "photos" / name, 6, seed=len(name) + ord(name[-1]))
        write_images(folder / "photos" / "test/a", 4, seed=seed)
        write_images(folder / "photos" / "test/b", 4, seed=seed + 10)
        done = train([*TINY, *TWO_STAGES, "data=imagefolder", "data.root=photos", "data.batch_size=4"], folder)
        assert done.code == 0, done.err
        state = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        left.append((state, {k: v for k, v in result(folder / "run").items() if k in ("best", "val")}))
    (first, first_result), (second, second_result) = left
    assert first_result == second_result
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_digits_learn(tmp_path: Path) -> None:
    """The embedded weights are worth something: the head alone gets most digits right."""
    request = ["data=digits", "model=tiny", "strategy=feature_extraction", "strategy.lr.head=1e-2"]
    done = train([*request, "trainer.max_epochs=4", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    assert result(tmp_path / "run")["test"]["acc"] > 0.8
    assert np.isclose(result(tmp_path / "run")["stages"][0]["trainable"], 10_250)
