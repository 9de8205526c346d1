"""Processes that want one directory at the same time: each writes its own, or is refused in a line."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch import ROOT, TINY_RUN, launch, train, unfreeze

ONE_EPOCH = "strategy.stages=[{name: head, train: 1, epochs: 1}]"
LONG = "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 500}]"
REQUEST = [*TINY_RUN, "data.fraction=0.1", "model.weights=null", "trainer.accelerator=cpu"]


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def test_two_runs_in_one_typed_directory(tmp_path: Path) -> None:
    """One of them runs as if alone, the other is refused."""
    both = [
        launch([*REQUEST, ONE_EPOCH, f"seed={seed}", f"hydra.run.dir={tmp_path}/run"], tmp_path / str(seed))
        for seed in (0, 1)
    ]
    done = [process.finish() for process in both]
    assert sorted(each.code for each in done) == [0, 2]
    winner = next(seed for seed, each in enumerate(done) if each.code == 0)
    loser = done[1 - winner]
    assert loser.err.count("\n") == 1
    assert loser.err.startswith(f"error: hydra.run.dir: '{tmp_path}/run'")
    alone = train([*REQUEST, ONE_EPOCH, f"seed={winner}", "hydra.run.dir=alone"], tmp_path)
    assert alone.code == 0, alone.err
    for key in ("seed", "val", "test"):
        assert result(tmp_path / "run")[key] == result(tmp_path / "alone")[key]
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_runs_in_one_default_directory(tmp_path: Path) -> None:
    """The default name has the time to a second; a folder of configurations gives both the same one."""
    config = (Path(__file__).parents[1] / "conf" / "hydra" / "default.yaml").read_text().splitlines()
    (tmp_path / "conf" / "hydra").mkdir(parents=True)
    lines = [
        "  dir: outputs/same" if line.startswith("  dir: outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}-$") else line
        for line in config
    ]
    assert lines != config
    (tmp_path / "conf" / "hydra" / "same.yaml").write_text("\n".join(lines))
    request = [*REQUEST, ONE_EPOCH, "hydra=same", "--config-dir", str(tmp_path / "conf")]
    both = [launch([*request, f"seed={seed}"], tmp_path) for seed in (0, 1)]
    assert [process.finish().code for process in both] == [0, 0]
    runs = [tmp_path / "outputs" / name for name in ("same", "same-2")]
    assert {result(run)["seed"] for run in runs} == {0, 1}
    third = train([*request, "seed=2"], tmp_path)
    assert third.code == 0, third.err
    assert result(tmp_path / "outputs" / "same-3")["seed"] == 2


def test_a_run_that_is_being_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither resume nor report, export or evaluate touch it; once it was killed, it goes on."""
    running = launch([*REQUEST, LONG, "hydra.run.dir=run"], tmp_path)
    running.wait_for("all  2/500")
    before = (tmp_path / "run" / "result.json").read_bytes()
    again = train([f"resume={tmp_path}/run"], tmp_path / "other")
    assert again.code == 2
    assert f"run' is in use by process {running.pid} on this host" in again.err
    assert again.err.count("\n") == 1
    monkeypatch.chdir(tmp_path)
    for command in (["report", "run"], ["export", "run", "--to", "safetensors"], ["evaluate", "run"]):
        assert unfreeze(command, monkeypatch) == 2
        told = capsys.readouterr().err
        assert f"process {running.pid}" in told
        assert len(told.splitlines()) == 1
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert not (tmp_path / "run" / "exports").exists()
    running.kill(signal.SIGKILL)
    running.finish()
    going_on = launch([f"resume={tmp_path}/run"], tmp_path / "other")
    going_on.wait_for("all  ")
    going_on.kill(signal.SIGTERM)
    assert going_on.finish().code == 143


def test_two_multiruns_in_one_directory(tmp_path: Path) -> None:
    request = ["-m", *REQUEST, ONE_EPOCH, "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep"]
    both = [launch(request, tmp_path / str(number)) for number in range(2)]
    done = [process.finish() for process in both]
    assert sorted(each.code for each in done) == [0, 2]
    refused = next(each for each in done if each.code == 2)
    assert refused.err.startswith(f"error: hydra.sweep.dir: '{tmp_path}/sweep'")
    assert refused.err.count("\n") == 1
    assert [result(tmp_path / "sweep" / job)["status"] for job in ("0", "1")] == ["completed", "completed"]


def test_ranks_that_start_apart_need_a_typed_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")

    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *REQUEST, ONE_EPOCH], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: hydra.run.dir: missing; under torchrun or Slurm")
    assert list(tmp_path.iterdir()) == []
