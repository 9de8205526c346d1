"""Runs that a limit ends: a plan that is cut beforehand is completed, a run that stops before its plan goes on."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launch import TINY_RUN, train
from unfreeze.results.result import best_validation

STAGES = "strategy.stages=[{name: head, train: 1, epochs: 2}, {name: all, train: all, epochs: 3}]"
REQUEST = [*TINY_RUN, "data.fraction=0.1", "model.weights=null", "trainer.accelerator=cpu", "hydra.run.dir=run"]
STOP_EARLY = (
    "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: 0, "
    "min_delta: 100}"
)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "result.json").read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / "run" / "metrics.csv").open() as file:
        return [{key: float(v) if key != "stage" else v for key, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("limit", "epochs", "last_step"),
    [("trainer.max_epochs=3", {"head": 2, "all": 1}, 9), ("trainer.max_steps=5", {"head": 2}, 5)],
)
def test_epochs_and_steps_cut_the_plan_and_the_run_is_completed(
    limit: str, epochs: dict[str, int], last_step: int, tmp_path: Path
) -> None:
    done = train([*REQUEST, STAGES, limit], tmp_path)
    assert done.code == 0, done.err
    got = result(tmp_path)
    assert got["status"] == "completed"
    assert got["test"]["n"] > 0
    assert {stage["name"]: stage["epochs"] for stage in got["stages"]} == epochs
    assert rows(tmp_path)[-1]["step"] == last_step
    assert "val/acc" in rows(tmp_path)[-1], "the weights that the run ends with are validated"
    assert f"cut from 5 epochs by {limit}" in (tmp_path / "run" / "plan.txt").read_text()
    assert f"cut from 5 epochs by {limit}" in done.out


def test_time_stops_a_run_which_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    stages = "strategy.stages=[{name: head, train: 1, epochs: 2}, {name: all, train: all, epochs: 6}]"
    whole = train([*REQUEST, stages], tmp_path / "whole")
    assert whole.code == 0, whole.err
    limited = train([*REQUEST, stages, "trainer.max_time={milliseconds: 300}"], tmp_path / "limited")
    assert limited.code == 0, limited.err
    got = result(tmp_path / "limited")
    assert got["status"] == "stopped"
    assert got["reason"].startswith("trainer.max_time=0:00:00.300000 has passed; not trained to the end: ")
    assert "all" in got["reason"]
    assert got["test"] is None
    resumed = train(["resume=run", "trainer.max_time=null"], tmp_path / "limited")
    assert resumed.code == 0, resumed.err
    assert result(tmp_path / "limited")["status"] == "completed"
    states = [
        torch.load(tmp_path / name / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "limited")
    ]
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items() if key.startswith("network."))


def test_a_callback_that_stops_the_fit_leaves_a_stopped_run_that_is_not_tested(tmp_path: Path) -> None:
    done = train([*REQUEST, STAGES, STOP_EARLY], tmp_path)
    assert done.code == 0, done.err
    got = result(tmp_path)
    assert got["status"] == "stopped"
    assert got["reason"] == "trainer.should_stop was set by a callback; not trained to the end: all"
    assert got["test"] is None
    resumed = train(["resume=run", "+callbacks.stop=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert result(tmp_path)["status"] == "completed"
    assert [stage["epochs"] for stage in result(tmp_path)["stages"]] == [2, 3]


def test_figures_are_those_of_the_best_checkpoint_within_an_epoch(tmp_path: Path) -> None:
    """Every validation has its row, and whatever claims to be of the best checkpoint is of that row."""
    request = [*REQUEST, "strategy.lr.head=0.3", "optimizer.schedule=constant", "augment=none"]
    done = train([*request, "trainer.val_check_interval=1", STAGES], tmp_path)
    assert done.code == 0, done.err
    got, validations = result(tmp_path), rows(tmp_path)
    assert [row["step"] for row in validations] == list(range(1, 16))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    (kept,) = (row for row in validations if row["step"] == checkpoint["global_step"])
    assert kept == best_validation(validations, "val/acc", "max")
    assert got["val"] == {key.removeprefix("val/"): value for key, value in kept.items() if key.startswith("val/")}
    assert got["best"] == {"epoch": kept["epoch"], "stage": kept["stage"]}
    for stage in got["stages"]:
        own = best_validation([row for row in validations if row["stage"] == stage["name"]], "val/acc", "max")
        assert own is not None
        assert (stage["best_epoch"], stage["val_acc"], stage["val/acc"]) == (
            own["epoch"],
            own["val/acc"],
            own["val/acc"],
        )
    assert json.loads((tmp_path / "run" / "stages.json").read_text()) == got["stages"]


@pytest.mark.parametrize("interval", ["trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=2"])
def test_a_stage_is_validated_at_its_end(interval: str, tmp_path: Path) -> None:
    stages = "strategy.stages=[{name: head, train: 1, epochs: 3}, {name: all, train: all, epochs: 2}]"
    done = train([*REQUEST, stages, interval], tmp_path)
    assert done.code == 0, done.err
    validated = {row["step"] for row in rows(tmp_path) if "val/acc" in row}
    assert {9, 15} <= validated
    assert 3 not in validated, "the intervals hold within a stage"
