"""Averages of weights: what they are, who sees them, and that stages, checkpoints and resumes go with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.training.conftest import Probe, equal, make_classifier, state_of
from unfreeze.errors import Stopped, UnfreezeError
from unfreeze.system.signals import STOP
from unfreeze.training.callbacks.averaging import WeightAverage
from unfreeze.training.callbacks.checkpointing import BestCheckpoint, LastCheckpoint
from unfreeze.training.callbacks.seeding import SeededSteps
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Rates, Stage

STAGES = [Stage("head", train=1, epochs=3), Stage("more", train=3, epochs=3)]
Fit = Callable[..., L.Trainer]


def staged(stages: list[Stage] | None = None, **options: Any) -> StagedUnfreezing:
    return StagedUnfreezing(stages or STAGES, rates=Rates(head=3e-3, decay=1.0), **options)


class Judged(Callback):
    """Keeps the network's weights as validation sees them."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append(state_of(pl_module))


def module() -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(make_classifier(), augment="none")


def test_an_exponential_average_is_what_plain_arithmetic_says(fit: Fit) -> None:
    trained, judged = module(), Judged()
    weights = Probe(lambda trainer, module: state_of(module))
    fit(trained, [staged([Stage("head", train=1, epochs=2)]), WeightAverage(0.9), judged, weights])
    key = "fc.weight"
    before = state_of(module())[key]
    average = before.clone()
    for step, state in enumerate(weights.seen):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state[key]
    torch.testing.assert_close(judged.seen[-1][key], average)
    assert not torch.equal(judged.seen[-1][key], weights.seen[-1][key])
    frozen = [name for name in state_of(trained) if not name.startswith("fc")]
    assert equal(judged.seen[-1], state_of(module()), frozen), "what is frozen is the same to the bit"


def test_after_a_fit_it_still_knows_the_weights_and_their_average(fit: Fit) -> None:
    trained, average = module(), WeightAverage(0.9)
    fit(trained, [staged([Stage("head", train=1, epochs=2)]), average])
    current = average.state_dict()["current"]
    checkpoint: dict[str, Any] = {"state_dict": {}}
    average.on_save_checkpoint(None, trained, checkpoint)  # type: ignore[arg-type]
    assert current.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(current[key], state_of(trained)[key]) for key in current)
    assert not torch.equal(checkpoint["state_dict"]["network.fc.weight"], current["fc.weight"])


def test_an_equal_average_is_the_mean_of_the_later_epochs(fit: Fit) -> None:
    trained, judged = module(), Judged()
    weights = Probe(lambda trainer, module: (trainer.is_last_batch, state_of(module)))
    stages = staged([Stage("all", train="all", epochs=4)])
    fit(trained, [stages, WeightAverage(None, start=0.5), judged, weights])
    ends = [state for is_last, state in weights.seen if is_last]
    for key in ("fc.weight", "conv5.1.running_mean", "conv1.0.weight"):
        assert torch.equal(judged.seen[1][key], ends[1][key]), "before the start weights are judged as they are"
        torch.testing.assert_close(judged.seen[3][key], (ends[2][key] + ends[3][key]) / 2)


@pytest.mark.parametrize("restore", ["best", "last"])
def test_the_next_stage_starts_from_the_average(restore: Any, fit: Fit) -> None:
    judged, stages = Judged(), staged(restore=restore)
    starts: list[dict[str, torch.Tensor]] = []

    class Start(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if stages.stage == 1 and not stages.epochs_in_stage:
                starts.append(state_of(pl_module))

    best: list[int] = []

    class Best(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if stages.stage == 0:
                best.append(stages.stage_best[1])

    fit(module(), [stages, WeightAverage(0.9), judged, Start(), Best()])
    expected = judged.seen[best[-1] - 1 if restore == "best" else 2]
    assert equal(starts[0], expected, ["fc.weight", "fc.bias"])


def test_checkpoints_hold_the_average_as_the_model(fit: Fit, tmp_path: Path) -> None:
    trained, judged = module(), Judged()
    best = BestCheckpoint(tmp_path, monitor="val/loss", mode="min")
    fit(trained, [staged(), WeightAverage(0.9), judged, best], enable_checkpointing=True)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)
    state = {key.removeprefix("network."): value for key, value in saved["state_dict"].items() if "network." in key}
    losses = [
        index for index, seen in enumerate(judged.seen) if equal(seen, state, ["fc.weight", "conv5.1.running_var"])
    ]
    assert len(losses) >= 1


@pytest.mark.parametrize(
    ("decay", "step"),
    [
        (0.9, 5),
        pytest.param(0.9, 14, marks=pytest.mark.slow),
        pytest.param(None, 5, marks=pytest.mark.slow),
        (None, 14),
    ],
)
def test_a_resume_goes_on_to_the_same_bits(decay: float | None, step: int, fit: Fit, tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[Callback]:
        best = BestCheckpoint(folder, monitor="val/acc", mode="max")
        return [staged(), SeededSteps(0), WeightAverage(decay, start=0.0), best, LastCheckpoint(folder)]

    class Stop(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == step - 1:
                STOP.received = 15

    whole = module()
    fit(whole, callbacks(tmp_path / "whole"), enable_checkpointing=True)
    try:
        with pytest.raises(Stopped):
            fit(module(), [Stop(), *callbacks(tmp_path / "cut")], enable_checkpointing=True)
    finally:
        STOP.received = None
    resumed = module()
    fit(
        resumed,
        callbacks(tmp_path / "cut"),
        enable_checkpointing=True,
        ckpt_path=tmp_path / "cut" / "last.ckpt",
        weights_only=True,
    )
    assert equal(state_of(whole), state_of(resumed))
    last = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "cut")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0] if key.startswith("network."))


@pytest.mark.parametrize(("options", "told"), [({"decay": 1.0}, "decay: got 1.0"), ({"start": 1.0}, "start: got 1.0")])
def test_values_out_of_range_are_refused(options: dict[str, float], told: str) -> None:
    with pytest.raises(UnfreezeError, match=told):
        WeightAverage(**options)
