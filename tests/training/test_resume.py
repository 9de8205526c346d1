"""A run that is killed or stopped, and resumed, ends bit for bit where one that was not ends."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launch import Finished, launch, train

STAGES = (
    "[{name: head, train: 1, epochs: 2, augment: none},"
    " {name: block, train: 2, epochs: 4, warmup: 0.2, patience: 1},"
    " {name: all, train: all, epochs: 2, optimizer: sgd}]"
)
STEPS_PER_EPOCH = 9
REQUEST = [
    "data=digits",
    "data.fraction=0.05",
    "data.batch_size=8",
    "data.image_size=32",
    "data.mirror=true",
    "model=tiny",
    "model.weights=null",
    "head.dropout=0.3",
    "augment=strong",
    "strategy.lr={head: 3e-3, decay: 0.5}",
    f"strategy.stages={STAGES}",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=3",
    "trainer.precision=32-true",
]
KILL = ["+callbacks.kill._target_=tests.killing.KillAt"]


def run(folder: Path, *extra: str) -> Finished:
    return train([*REQUEST, "hydra.run.dir=run", *extra], folder)


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    state = torch.load(folder / "run" / "checkpoints" / name, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def rows(folder: Path) -> list[dict[str, str]]:
    """Return metrics.csv without what the clock decides."""
    with (folder / "run" / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "result.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finished = run(folder)
    assert finished.code == 0, finished.err
    return folder


def assert_same_run(folder: Path, reference: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        got, want = weights(folder, name), weights(reference, name)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) for key in want), name
    assert rows(folder) == rows(reference)
    assert scalars(folder) == scalars(reference)
    for key in ("status", "best", "val", "test"):
        assert rounded(result(folder)[key]) == rounded(result(reference)[key]), key


def scalars(folder: Path) -> dict[str, set[tuple[int, float]]]:
    """Return the points of TensorBoard's curves, without what the clock decides and where a run was stopped."""
    events = EventAccumulator(str(folder / "run" / "tensorboard")).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "second" not in tag and not tag.startswith("final/")]
    return {tag: {(event.step, rounded(event.value)) for event in events.Scalars(tag)} for tag in tags}


def rounded(value: Any) -> Any:
    """Return figures to nine digits: where memory lies moves a logit of one in a thousand by its last bit."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def test_the_reference_run_goes_through_all_stages(uninterrupted: Path) -> None:
    stages = result(uninterrupted)["stages"]
    assert [stage["name"] for stage in stages] == ["head", "block", "all"]
    assert result(uninterrupted)["status"] == "completed"
    steps = {int(row["step"]) // int(row["epoch"]) for row in rows(uninterrupted)}
    assert steps == {STEPS_PER_EPOCH}


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(4, id="in the head stage, before any checkpoint", marks=pytest.mark.slow),
        pytest.param(14, id="in the head stage, in mid-epoch", marks=pytest.mark.slow),
        pytest.param(19, id="just after a stage change"),
        pytest.param(-4, id="in mid-epoch of the last stage", marks=pytest.mark.slow),
    ],
)
def test_killed(step: int, uninterrupted: Path, tmp_path: Path) -> None:
    at = step if step > 0 else int(rows(uninterrupted)[-1]["step"]) + step
    killed = run(tmp_path, *KILL, f"+callbacks.kill.step={at}")
    assert killed.code == -signal.SIGKILL
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("name", "step", "code"),
    [("SIGTERM", 23, 143), ("SIGINT", 41, 130), pytest.param("SIGTERM", 9, 143, marks=pytest.mark.slow)],
)
def test_stopped_between_steps(name: str, step: int, code: int, uninterrupted: Path, tmp_path: Path) -> None:
    stopped = run(tmp_path, *KILL, f"+callbacks.kill.step={step}", f"+callbacks.kill.name={name}")
    assert stopped.code == code
    assert result(tmp_path)["status"] == "stopped"
    assert result(tmp_path)["reason"] == name
    assert "resume=run" in stopped.out
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path, uninterrupted)


ENDS_BY_PATIENCE = "strategy.stages=[{name: head, train: 1, epochs: 30, patience: 1}]"


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        pytest.param("SIGKILL", [], id="SIGKILL after the last epoch", marks=pytest.mark.slow),
        pytest.param("SIGTERM", [], id="SIGTERM after the last epoch"),
        pytest.param("SIGKILL", [ENDS_BY_PATIENCE], id="SIGKILL after patience"),
        pytest.param("SIGTERM", [ENDS_BY_PATIENCE], id="SIGTERM after patience", marks=pytest.mark.slow),
    ],
)
def test_ended_while_testing(name: str, extra: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    killed = run(tmp_path, *extra, *KILL, f"+callbacks.kill.name={name}")
    assert killed.code == (-signal.SIGKILL if name == "SIGKILL" else 143)
    trained, epochs = weights(tmp_path), rows(tmp_path)
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert result(tmp_path)["test"] is not None
    assert all(torch.equal(trained[key], value) for key, value in weights(tmp_path).items())
    assert rows(tmp_path) == epochs
    if not extra:
        assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_with_limited_epochs_and_resumed_elsewhere(tmp_path: Path) -> None:
    """Epochs that end before the loader does, and a run's directory that was moved in between."""
    limit = "trainer.limit_train_batches=4"
    assert run(tmp_path / "whole", limit).code == 0
    assert run(tmp_path / "killed", limit, *KILL, "+callbacks.kill.step=11").code == -signal.SIGKILL
    assert result(tmp_path / "killed")["status"] == "stopped"
    (tmp_path / "killed").rename(tmp_path / "moved")
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path / "moved")
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path / "moved", tmp_path / "whole")


def test_a_broken_last_checkpoint_names_one_that_is_whole(uninterrupted: Path, tmp_path: Path) -> None:
    run(tmp_path, *KILL, "+callbacks.kill.step=23", "+callbacks.kill.name=SIGTERM")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    refused = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "last.ckpt: can't be read as a checkpoint (it is incomplete: its end is missing)" in refused.err
    epoch = torch.load(last.with_name("best.ckpt"), weights_only=True)["epoch"] + 1
    assert f"best.ckpt beside it is whole, of epoch {epoch}: copy it to {last} and type resume=" in refused.err
    shutil.copyfile(last.with_name("best.ckpt"), last)
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert result(tmp_path)["status"] == "completed"
    for name in ("last.ckpt", "best.ckpt"):
        got, want = weights(tmp_path, name), weights(uninterrupted, name)
        assert all(torch.equal(got[key], want[key]) for key in want), name


@pytest.mark.slow
def test_killed_on_cached_views(tmp_path: Path) -> None:
    """Features that were in memory, and are gone with the process, are computed again to the same bits."""
    views = ["cache.views=2", "augment=standard", "head.dropout=0.3"]
    assert run(tmp_path / "whole", *views, "cache.dir=own").code == 0
    block = result(tmp_path / "whole")["stages"][1]
    assert block["cache"]["splits"] == ["train", "val"]
    at = 2 * STEPS_PER_EPOCH + STEPS_PER_EPOCH + 4
    killed = run(tmp_path / "killed", *views, "cache.dir=own", *KILL, f"+callbacks.kill.step={at}")
    assert killed.code == -signal.SIGKILL
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path / "killed")
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_completed_run_says_so(uninterrupted: Path) -> None:
    again = train(["resume=run"], uninterrupted)
    assert again.code == 0
    assert "has completed" in again.out


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("strategy.lr.head=5", "strategy.lr.head was 0.003, is 5.0"),
        ("trainer.max_epochs=10", "trainer.max_epochs was None, is 10"),
        ("strategy.stages=[{name: head, train: 1, epochs: 9}]", "strategy.stages was ["),
        ("augment=none", "augment was 'strong', is 'none'. To train on"),
    ],
)
def test_a_completed_run_refuses_other_settings(typed: str, told: str, uninterrupted: Path) -> None:
    refused = train(["resume=run", typed], uninterrupted)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert refused.err.startswith(f"error: resume: run has completed, so nothing would train: {told}")
    assert "type model.weights=run/checkpoints/best.ckpt" in refused.err


def test_a_completed_run_says_so_beside_what_changes_nothing(uninterrupted: Path) -> None:
    again = train(["resume=run", "strategy.lr.head=3e-3", "logger=none", "trainer.max_time=00:01:00:00"], uninterrupted)
    assert again.code == 0, again.err
    assert "has completed" in again.out


def test_a_changed_plan_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    run(tmp_path, *KILL, "+callbacks.kill.step=12")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}
    refused = train(["resume=run", "strategy.lr.head=1e-2"], tmp_path)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "the plan has changed: stage 'head': rates was (0.003,), is (0.01,)" in refused.err
    for typed, told in (
        ("seed=1", "seed was 0, is 1"),
        ("monitor=val/loss", "monitor was 'val/acc', is 'val/loss'"),
        ("optimizer.weight_decay=5", "optimizer.weight_decay was 0.01, is 5.0"),
        ("augment=light", "augment was 'strong', is 'light'"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches was 1, is 2"),
        ("trainer.limit_val_batches=1", "trainer.limit_val_batches was None, is 1"),
        ("trainer.val_check_interval=0.5", "trainer.val_check_interval was None, is 0.5"),
        ("trainer.compile=true", "trainer.compile was False, is True"),
        ("head.dropout=0.1", "head.dropout was 0.3, is 0.1"),
        ("data.mirror=false", "data.mirror was True, is False"),
        ("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_algorithm was None, is 'value'"),
    ):
        refused = train(["resume=run", typed], tmp_path)
        assert refused.code == 2
        assert told in refused.err
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}


def test_a_signal_from_outside(tmp_path: Path) -> None:
    process = launch([*REQUEST, "hydra.run.dir=run", "data.image_size=64"], tmp_path)
    process.wait_for("head  1/2")
    process.kill(signal.SIGTERM)
    assert process.finish().code == 143
    assert result(tmp_path)["status"] == "stopped"
    resumed = train(["resume=run"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert result(tmp_path)["status"] == "completed"
