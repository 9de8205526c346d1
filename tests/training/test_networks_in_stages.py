"""Networks of all kinds go through a stage change that restores the best weights, with an average, and resume in it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.models.sizes import smallest_px
from tests.models.timm_families import SMALLEST
from tests.training.conftest import equal, make_source, state_of
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.splits.splits import split_source
from unfreeze.errors import Stopped
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import build_classifier
from unfreeze.models.spec import ModelSpec
from unfreeze.models.torchvision_models import classifier_names
from unfreeze.system.signals import STOP
from unfreeze.training.callbacks.averaging import WeightAverage
from unfreeze.training.callbacks.checkpointing import BestCheckpoint, LastCheckpoint
from unfreeze.training.callbacks.seeding import SeededSteps
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.param_groups import OptimizerSpec
from unfreeze.training.plan.plan import Rates, Stage

STAGES = [Stage("head", train=1, epochs=2), Stage("more", train=2, epochs=1)]
STOPPED_AT = 5
"""The second of three steps of the head's second epoch: the weights to restore are in the checkpoint."""

QUICK = "mnasnet0_5"
OTHERS = [ModelSpec(name) for name in classifier_names() if name != QUICK]
OTHERS += [ModelSpec(name, "timm") for name in SMALLEST]
Fit = Callable[..., L.Trainer]


class StopInHead(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == STOPPED_AT - 1:
            STOP.received = 15


def build_module(spec: ModelSpec, size_px: int) -> ImageClassifier:
    torch.manual_seed(0)
    names = ["class0", "class1", "class2"]
    classifier = build_classifier(spec, classes=names, weights=None, image_size=size_px)
    # Without moments, a checkpoint of the largest networks is a third of the size.
    optimizer = OptimizerSpec() if spec.name == QUICK else OptimizerSpec(name="sgd", momentum=0.0)
    return ImageClassifier(classifier, augment="none", optimizer=optimizer)


def callbacks(folder: Path) -> list[Callback]:
    stages = StagedUnfreezing(STAGES, rates=Rates(head=1e-3, decay=0.3), monitor="val/loss", mode="min", restore="best")
    best = BestCheckpoint(folder, monitor="val/loss", mode="min")
    return [stages, SeededSteps(0), WeightAverage(0.9), best, LastCheckpoint(folder)]


def go_through_stages(spec: ModelSpec, fit: Fit, folder: Path) -> None:
    source, size_px = make_source(per_class=4), smallest_px(spec)

    def train(name: str, *more: Callback, **options: object) -> ImageClassifier:
        data = ImageDataModule(source, batch_size=3, splits=split_source(source, val_fraction=0.25))
        module = build_module(spec, size_px)
        fit(module, [*more, *callbacks(folder / name)], data=data, enable_checkpointing=True, **options)
        return module

    whole = state_of(train("whole"))
    try:
        with pytest.raises(Stopped):
            train("cut", StopInHead())
    finally:
        STOP.received = None
    resumed = train("cut", ckpt_path=folder / "cut" / "last.ckpt", weights_only=True)
    assert equal(whole, state_of(resumed))
    trained = resumed.classifier.groups[:2]
    start = state_of(build_module(spec, size_px))
    for group in resumed.classifier.groups:
        changed = [key for key in group.parameters if not torch.equal(start[key], whole[key])]
        assert bool(changed) == (group in trained), group.name
    best = [load_classifier(folder / name / "best.ckpt").network.state_dict() for name in ("whole", "cut")]
    assert equal(best[0], best[1])


def test_mnasnet_goes_through_a_stage_change(fit: Fit, tmp_path: Path) -> None:
    go_through_stages(ModelSpec(QUICK), fit, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: f"{spec.source}-{spec.name}")
def test_a_network_goes_through_a_stage_change(spec: ModelSpec, fit: Fit, tmp_path: Path) -> None:
    if spec.source == "timm":
        pytest.importorskip("timm", reason="timm is not installed")
    try:
        go_through_stages(spec, fit, tmp_path)
    finally:
        shutil.rmtree(tmp_path)
