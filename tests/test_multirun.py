"""Multiruns: jobs apart from each other, a table at the end, one test for the winner of a search."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from tests.launch import train
from unfreeze.cache.folder import CacheFolder

QUICK = [
    "-m",
    "data=digits",
    "data.fraction=0.05",
    "data.image_size=32",
    "model=tiny",
    "model.weights=null",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=1",
    "hydra.sweep.dir=sweep",
]


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep" / "summary.csv").read_text().splitlines()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_grid_runs_each_job_as_if_alone(tmp_path: Path) -> None:
    done = train([*QUICK, "strategy=feature_extraction,gradual", "seed=0,1"], tmp_path)
    assert done.code == 0, done.err
    assert [(row["strategy"], row["seed"], row["status"]) for row in rows(tmp_path)] == [
        ("feature_extraction", "0", "completed"),
        ("feature_extraction", "1", "completed"),
        ("gradual", "0", "completed"),
        ("gradual", "1", "completed"),
    ]
    assert all(row["test_acc"] for row in rows(tmp_path))
    assert "summary.csv" in done.out
    best = max(rows(tmp_path), key=lambda row: (float(row["val_acc"]), -float(row["val_loss"])))
    drawn = [file.parents[1].name for file in tmp_path.rglob("learning_curves.png")]
    assert drawn == [best["job"]]
    alone = [argument for argument in QUICK if argument not in ("-m", "hydra.sweep.dir=sweep")]
    done = train([*alone, "strategy=gradual", "seed=1", "hydra.run.dir=alone"], tmp_path / "again")
    assert done.code == 0, done.err
    third, single = weights(tmp_path / "sweep" / "3"), weights(tmp_path / "again" / "alone")
    assert all(torch.equal(third[key], single[key]) for key in single)


def test_a_job_that_fails_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    done = train([*QUICK, "model.weights=null,gone.pth", "strategy=feature_extraction"], tmp_path)
    assert done.code == 1
    assert [row["status"] for row in rows(tmp_path)] == ["completed", "failed"]
    assert "model.weights: no file 'gone.pth'" in rows(tmp_path)[1]["reason"]
    assert "#1 failed: model.weights: no file 'gone.pth'" in done.out
    assert "Traceback" not in done.out + done.err


def test_a_search_with_a_winner_has_succeeded_and_lists_the_trials_that_failed(tmp_path: Path) -> None:
    request = [*QUICK, "search=true", "report=false", "logger=none", "strategy=feature_extraction"]
    done = train([*request, "model.weights=null,gone.pth", "strategy.lr.head=0.00123456789012345"], tmp_path)
    assert done.code == 0, done.err
    assert [row["status"] for row in rows(tmp_path)] == ["completed", "failed"]
    assert "#0 won by val/acc" in done.out
    assert "#1 failed: model.weights: no file 'gone.pth'" in done.out
    assert "\n#0 model.weights=null\n" in done.out


def test_a_search_without_a_winner_has_failed(tmp_path: Path) -> None:
    done = train([*QUICK, "search=true", "model.weights=gone.pth,lost.pth", "logger=none"], tmp_path)
    assert done.code == 1


def test_trials_of_a_search_never_test_and_the_winner_does_once(tmp_path: Path) -> None:
    request = [*QUICK, "sweep=optuna", "hydra.sweeper.n_trials=3", "strategy=feature_extraction", "cache.dir=cache"]
    done = train(request, tmp_path)
    assert done.code == 0, done.err
    results = [result(tmp_path / "sweep" / str(i)) for i in range(3)]
    tested = [i for i, r in enumerate(results) if r["test"] is not None]
    best = max(range(3), key=lambda i: results[i]["val"]["acc"])
    assert tested == [best]
    assert f"#{best} won by val/acc" in done.out
    assert len({r["stages"][0]["seconds"] for r in results}) == 3
    assert len({row["strategy.lr.head"] for row in rows(tmp_path)}) == 3
    (kept,) = CacheFolder(tmp_path / "cache", 1.0).entries()[-1:]
    data = results[best]["data"]
    assert kept.kind == "features"
    assert kept.meta["images"] == data["train"] + data["val"] + data["test"], "the winner was judged by features too"
