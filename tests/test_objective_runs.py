"""Runs of train.py with several labels, several tasks, and a teacher; and what of them is refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from tests.launch import train
from unfreeze.data.store.store import StoreOptions
from unfreeze.models.checkpoint import load_classifier
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.reopen import reopen

NET = ["model=tiny", "model.weights=null", "data.image_size=32", "logger=none", "trainer.precision=32"]
STAGES = "strategy.stages=[{name: head, train: 1, epochs: 2, augment: none}, {name: all, train: all, epochs: 1}]"
TABLE = ["data=manifest", "data.csv=photos.csv", "data.batch_size=16"]
LABELS = "data.columns.label=[bright,red]"
TASKS = "data.columns.label=[tone,hue]"
DIGITS = ["data=digits", "data.fraction=0.15", "data.batch_size=32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write 96 images, bright or dark, red or blue, and a table that says so in several ways."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(96):
        bright, red = number % 2, number // 2 % 2
        pixels = random.normal(60 + 120 * bright, 20, (24, 24, 3))
        pixels[..., 0 if red else 2] += 50
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
        words = [name for name, there in (("bright", bright), ("red", red)) if there]
        tone, hue = ("dark", "bright")[bright], ("blue", "red")[red]
        rows.append([f"{number}.png", bright, "yes" if red else "no", "; ".join(words), tone, hue])
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "bright", "red", "words", "tone", "hue"], *rows])
    return tmp_path


def run(folder: Path, name: str, *typed: str) -> dict[str, Any]:
    """Return result.json of a run that must have completed, and what it said."""
    done = train([*NET, STAGES, f"hydra.run.dir={name}", f"cache.dir={folder / 'kept'}", *typed], folder)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    assert result["status"] == "completed"
    return result | {"out": done.out}


def test_labels_come_from_columns_or_from_one_and_are_judged_at_thresholds_of_validation(photos: Path) -> None:
    columns = run(photos, "columns", *TABLE, LABELS, "objective=multilabel", "monitor=val/ap_macro")
    words = run(
        photos,
        "words",
        *TABLE,
        "data.columns.label=words",
        "data.columns.separator=;",
        "objective=multilabel",
        "monitor=val/ap_macro",
    )
    assert columns["test"] == words["test"]
    assert "2 labels" in columns["out"]
    classifier = load_classifier(photos / "columns")
    assert classifier.classes == ("bright", "red")
    assert classifier.outputs.multilabel
    told = columns["test"]["per_label"]
    assert classifier.thresholds == pytest.approx([told[name]["threshold"] for name in classifier.classes])
    assert columns["test"]["ap_macro"] > 0.6


def test_what_is_said_of_each_label_is_what_scikit_learn_says_of_the_checkpoint(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(photos, "run", *TABLE, LABELS, "objective=multilabel", "data.balance=weights", "objective.loss=focal")
    classifier = load_classifier(photos / "run")
    monkeypatch.chdir(photos)
    data = reopen(RunDirectory(photos / "run"), classifier.preprocessing).data
    test = data.splits.test
    assert len(test) == result["test"]["n"]
    with torch.no_grad():
        scores = classifier.network(classifier.preprocessing(data.store.read(test))).sigmoid().numpy()
    truth = np.array([[int(name[:-4]) % 2, int(name[:-4]) // 2 % 2] for name in map(data.source.images.name, test)])
    assert classifier.thresholds is not None
    for column, name in enumerate(classifier.classes):
        yes, told = scores[:, column] >= classifier.thresholds[column], result["test"]["per_label"][name]
        assert told["support"] == truth[:, column].sum()
        assert told["precision"] == pytest.approx(precision_score(truth[:, column], yes, zero_division=0))
        assert told["recall"] == pytest.approx(recall_score(truth[:, column], yes))
        assert told["f1"] == pytest.approx(f1_score(truth[:, column], yes))
        assert told["ap"] == pytest.approx(average_precision_score(truth[:, column], scores[:, column]))


def test_tasks_have_a_head_figures_and_weights_of_their_own(photos: Path) -> None:
    typed = [*TABLE, TASKS, "head=multitask", "head.each=mlp", "head.hidden=8", "head.weights={hue: 2}"]
    result = run(photos, "run", *typed, "monitor=val/hue/acc", "data.balance=weights", "augment=strong")
    assert result["test"]["tasks"].keys() == {"tone", "hue"}
    assert result["test"]["tasks"]["hue"]["per_class"].keys() == {"blue", "red"}
    assert result["val"]["hue/acc"] <= 1
    assert "2 + 2 classes" in result["out"]
    classifier = load_classifier(photos / "run")
    assert [(task.name, task.classes) for task in classifier.outputs.tasks] == [
        ("tone", ("bright", "dark")),
        ("hue", ("blue", "red")),
    ]
    assert classifier.network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run that can teach."""
    folder = tmp_path_factory.mktemp("teacher")
    run(folder, "teacher", *DIGITS, "data.image_size=48")
    return folder


@pytest.mark.parametrize("match", [pytest.param("logits", marks=pytest.mark.slow), "features"])
def test_a_cached_teacher_says_what_one_that_is_asked_each_time_says(match: str, taught: Path, tmp_path: Path) -> None:
    typed = [*DIGITS, "objective=distill", f"objective.teacher={taught / 'teacher'}", f"objective.match={match}"]
    typed += ["augment=none", "cache.views=null"]
    kept = run(tmp_path, "kept", *typed)
    assert "targets of" in kept["out"]
    again = run(tmp_path, "again", *typed)
    assert "targets of" not in again["out"], "its targets are stored"
    asked = run(tmp_path, "asked", *typed, "cache.enabled=false")
    assert "targets of" not in asked["out"]
    assert kept["test"] == again["test"]
    for left, right in zip(kept["stages"], asked["stages"], strict=True):
        assert left["val/acc"] == pytest.approx(right["val/acc"], abs=0.05)


@pytest.mark.slow
def test_a_teacher_goes_with_views_with_mixing_and_with_a_resume(taught: Path, tmp_path: Path) -> None:
    typed = [*DIGITS, "objective=distill", f"objective.teacher={taught / 'teacher'}", "cache.views=2"]
    gradual = "strategy.stages=[{name: head, train: 1, epochs: 4}, {name: all, train: all, epochs: 1, augment: strong}]"
    whole = run(tmp_path, "whole", *typed, gradual)
    end = ["+callbacks.end._target_=tests.killing.KillAt", "+callbacks.end.step=9", "+callbacks.end.name=SIGTERM"]
    stopped = train([*NET, *typed, gradual, "hydra.run.dir=cut", f"cache.dir={tmp_path / 'kept'}", *end], tmp_path)
    assert stopped.code == 143, stopped.err
    resumed = train(["resume=cut", "callbacks.end=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    result = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert result["test"] == whole["test"]
    weights = [load_classifier(tmp_path / name).network.state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def other_classes(folder: Path, taught: Path) -> str:
    """Copy the teacher with another name for a class."""
    shutil.copytree(taught / "teacher", folder / "other")
    file = folder / "other" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["unfreeze"]["classifier"]["outputs"]["tasks"]["label"][3] = "three"
    torch.save(checkpoint, file)
    return "other"


def other_splits(folder: Path, taught: Path) -> str:
    run(folder, "elsewhere", *DIGITS, "data.seed=1")
    return "elsewhere"


@pytest.mark.parametrize(
    ("make", "typed", "told"),
    [
        (lambda *_: "nowhere/run", [], "nowhere/run'; want a .ckpt file or the directory of a run"),
        (
            lambda *_: "resnet1",
            [],
            "objective.teacher: 'resnet1': no run, no checkpoint, and as a model: model.name: no classifier",
        ),
        (other_classes, [], "it does not know '3'"),
        (other_splits, [], "elsewhere are not those of this run"),
        (lambda folder, taught: str(taught / "teacher"), ["head=multitask"], "head=multitask: the data has one task"),
        (
            lambda folder, taught: str(taught / "teacher"),
            ["objective.match=features", "trainer.compile=true"],
            "trainer.compile: a compiled network shows no features",
        ),
    ],
)
def test_a_teacher_that_would_mislead_is_refused(
    make: Any, typed: list[str], told: str, taught: Path, tmp_path: Path
) -> None:
    given = make(tmp_path, taught)
    done = train(
        [*NET, *DIGITS, "objective=distill", f"objective.teacher={given}", "hydra.run.dir=run", *typed], tmp_path
    )
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ([LABELS], "head=linear: learns one task, but the data has 2: bright, red; type head=multitask"),
        (["data.columns.label=tone", "objective=multilabel"], "objective=multilabel: 'tone' has 2 classes"),
        (["data.columns.label=tone", "head=multitask"], "head=multitask: the data has one task, 'tone'"),
        ([LABELS, "objective=multilabel", "head=multitask"], "objective=multilabel has one head for all labels"),
        ([LABELS, "objective=multilabel", "data.balance=sampler"], "type data.balance=weights"),
        ([LABELS, "objective=multilabel", "monitor=val/acc_balanced"], "nothing logs 'val/acc_balanced'"),
        ([LABELS, "objective=multilabel", "strategy=probe", "augment=none"], "leave out objective=multilabel"),
        ([TASKS, "head=multitask", "strategy=probe", "augment=none"], "leave out head=multitask"),
        ([TASKS, "head=multitask", "head.weights={shape: 1}"], "head.weights: no task 'shape'; want tone, hue"),
        ([TASKS, "head=multitask", "monitor=val/shape/acc"], "monitor: no task 'shape'; want one of tone, hue"),
        ([TASKS, "head=multitask", "objective=distill", "objective.teacher=x"], "objective=distill teaches one task"),
        (["data.columns.label=[words,tone]", "data.columns.separator=;"], "data.columns.separator: given with 2"),
        (["data.columns.label=tone", "monitor=val/tone/acc"], "nothing logs 'val/tone/acc'"),
        (["data.columns.label=tone", "objective=distill"], "objective.teacher: missing"),
    ],
)
def test_objectives_that_do_not_go_with_the_data_are_refused(photos: Path, typed: list[str], told: str) -> None:
    done = train([*NET, *TABLE, "hydra.run.dir=run", *typed], photos)
    assert done.code == 2, done.out
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (photos / "run").exists()


def test_the_store_of_a_teacher_at_the_students_size_is_the_students(taught: Path) -> None:
    from tests.composing import composed
    from unfreeze.config.values import check_values
    from unfreeze.data.image_data import ImageData
    from unfreeze.runs.builders.data import build_data, decode
    from unfreeze.runs.builders.objective import build_teacher
    from unfreeze.runs.builders.outputs import outputs_of
    from unfreeze.runs.builders.source import build_source

    typed = [*NET, *DIGITS, "objective=distill", f"objective.teacher={taught / 'teacher'}"]
    config = check_values(composed(*typed, "data.image_size=48"), typed)
    source = build_source(config)
    data = build_data(ImageData, config, source)
    teacher = load_classifier(taught / "teacher")
    decode(data, teacher.preprocessing)
    found, images = build_teacher(config, source, data, outputs_of(config, source.tasks)[0])
    assert images is data
    assert found.classifier.classes == teacher.classes
    assert isinstance(data.store_options, StoreOptions)
