"""Checkpoint files: each whole, one that may wait held while writing takes long, none that contradicts another."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import make_classifier, quiet_trainer, state_of
from unfreeze.training.callbacks import checkpointing
from unfreeze.training.callbacks.checkpointing import BestCheckpoint, CheckpointFiles
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Rates, Stage

MAY_WAIT = {"may wait": True}


def checkpoint(value: float) -> dict[str, Any]:
    network = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(network.weight, value)
    return {"state_dict": network.state_dict(), "epoch": 1}


def value_in(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["state_dict"]["weight"][0, 0])


@pytest.fixture
def slow_files(monkeypatch: pytest.MonkeyPatch) -> CheckpointFiles:
    """Return files that take so much of the time that all wait where they may."""
    monkeypatch.setattr(checkpointing, "_MOST_SHARE", 1e-9)
    return CheckpointFiles()


def test_one_that_takes_no_time_is_written_at_once(tmp_path: Path) -> None:
    CheckpointFiles().save_checkpoint(checkpoint(1.0), tmp_path / "best.ckpt", MAY_WAIT)
    assert value_in(tmp_path / "best.ckpt") == 1.0


def test_the_first_of_a_large_model_is_held(tmp_path: Path) -> None:
    files, best = CheckpointFiles(), tmp_path / "best.ckpt"
    large = checkpoint(1.0)
    large["state_dict"]["more"] = torch.zeros(100_000_000, dtype=torch.int8)
    files.save_checkpoint(large, best, MAY_WAIT)
    assert not best.exists()
    files.teardown()
    assert value_in(best) == 1.0


def test_what_may_wait_is_held_and_the_newest_is_written(slow_files: CheckpointFiles, tmp_path: Path) -> None:
    best = tmp_path / "checkpoints" / "best.ckpt"
    slow_files.save_checkpoint(checkpoint(1.0), best)
    assert value_in(best) == 1.0
    slow_files.save_checkpoint(checkpoint(2.0), best, MAY_WAIT)
    assert value_in(best) == 1.0
    slow_files.save_checkpoint(checkpoint(3.0), best, MAY_WAIT)
    slow_files.teardown()
    assert value_in(best) == 3.0
    assert [file.name for file in best.parent.iterdir()] == ["best.ckpt"], "nothing half-written is left"


def test_what_is_held_is_what_was_when_it_was_saved(slow_files: CheckpointFiles, tmp_path: Path) -> None:
    best, training = tmp_path / "best.ckpt", checkpoint(1.0)
    slow_files.save_checkpoint(training, best, MAY_WAIT)
    slow_files.save_checkpoint(training, best, MAY_WAIT)
    training["state_dict"]["weight"].fill_(9.0)
    slow_files.teardown()
    assert value_in(best) == 1.0


def test_what_is_held_is_there_before_any_other_file(slow_files: CheckpointFiles, tmp_path: Path) -> None:
    """A resume goes by last.ckpt, which says how good the best one is."""
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    slow_files.save_checkpoint(checkpoint(1.0), best, MAY_WAIT)
    slow_files.save_checkpoint(checkpoint(2.0), best, MAY_WAIT)
    slow_files.save_checkpoint(checkpoint(3.0), last)
    assert value_in(best) == 2.0
    assert value_in(last) == 3.0


def test_one_that_must_not_wait_replaces_what_is_held(slow_files: CheckpointFiles, tmp_path: Path) -> None:
    best = tmp_path / "best.ckpt"
    slow_files.save_checkpoint(checkpoint(1.0), best, MAY_WAIT)
    slow_files.save_checkpoint(checkpoint(2.0), best, MAY_WAIT)
    slow_files.save_checkpoint(checkpoint(3.0), best)
    slow_files.teardown()
    assert value_in(best) == 3.0


def test_what_could_not_be_written_is_still_held(
    slow_files: CheckpointFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = tmp_path / "best.ckpt"
    slow_files.save_checkpoint(checkpoint(1.0), best)
    slow_files.save_checkpoint(checkpoint(2.0), best, MAY_WAIT)

    def interrupted(_: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slow_files.save_checkpoint(checkpoint(3.0), best)
    assert value_in(best) == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"], "nothing half-written is left"
    slow_files.teardown()
    assert value_in(best) == 2.0


class _Boom(checkpointing.L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise RuntimeError("boom")


def test_a_run_that_crashes_leaves_its_best(tmp_path: Path, fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "_MOST_SHARE", 1e-9)
    torch.manual_seed(0)
    best = BestCheckpoint(tmp_path, monitor="val/loss", mode="min")
    with pytest.raises(RuntimeError, match="boom"):
        fit(
            ImageClassifier(make_classifier(), lr=1e-3),
            [best, _Boom()],
            max_epochs=4,
            enable_checkpointing=True,
            trainer={"plugins": [CheckpointFiles()]},
        )
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert kept["callbacks"]["BestCheckpoint"]["best"] == best._best
    assert kept["epoch"] > 0, "the first is written at once; a better one was held"


def test_lightning_loads_what_was_held(tmp_path: Path) -> None:
    files, module = CheckpointFiles(), ImageClassifier(make_classifier())
    trainer = quiet_trainer(max_epochs=1, plugins=[files])
    trainer.strategy.connect(module)
    for _ in range(2):
        trainer.save_checkpoint(tmp_path / "best.ckpt", storage_options=MAY_WAIT)
    files.teardown()
    weights = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert weights._metadata == module.state_dict()._metadata
    module.load_state_dict(weights)


class _Kept(checkpointing.L.Callback):
    """Keeps what each validation logs, and the weights that it measures."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, dict[str, torch.Tensor]]] = []

    def on_validation_end(self, trainer, pl_module):
        logged = trainer.callback_metrics
        self.seen.append((float(logged["val/acc"]), float(logged["val/loss"]), state_of(pl_module)))


def test_of_equally_accurate_epochs_the_one_of_the_lowest_loss_is_kept(tmp_path: Path, fit: Any) -> None:
    """The head learns so slowly that the accuracy stands while the loss falls."""
    validations, module = _Kept(), ImageClassifier(make_classifier())
    stages = [Stage("head", 1, 4), Stage("block", 2, 1)]
    rates = Rates(head=1e-5, decay=0.0, floor=0.0)
    unfreezing = StagedUnfreezing(stages, rates=rates, schedule="constant")
    best = BestCheckpoint(tmp_path, monitor="val/acc", mode="max", keep=2)
    fit(module, [unfreezing, validations, best], enable_checkpointing=True)
    accuracies = [accuracy for accuracy, *_ in validations.seen]
    assert len(set(accuracies)) == 1, "every epoch is as accurate"
    order = sorted(range(5), key=lambda epoch: validations.seen[epoch][1])
    assert order[0] > 0, "the first epoch has not the lowest loss"
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    wanted = validations.seen[order[0]][2]
    assert all(torch.equal(kept[f"network.{key}"], value) for key, value in wanted.items())
    assert {file.name for file in tmp_path.glob("epoch*")} == {f"epoch{epoch + 1:04d}.ckpt" for epoch in order[:2]}
