"""Stages that train some parameters of their groups alone, batches of one image, and rates that go by the batch."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from tests.composing import composed
from tests.training.conftest import Probe, equal, make_classifier, make_source, state_of
from unfreeze.config.values import check_values
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.splits.splits import split_source
from unfreeze.errors import UnfreezeError
from unfreeze.models.groups import choose_parameters
from unfreeze.runs.builders.outputs import outputs_of
from unfreeze.runs.builders.plan import build_plan
from unfreeze.runs.builders.source import build_source
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Plan, Rates, Stage

Fit = Callable[..., L.Trainer]


def keys_of(module: ImageClassifier, only: Any) -> set[str]:
    groups = module.classifier.groups
    return set(choose_parameters(module.network, groups, [group.name for group in groups], only))


@pytest.mark.parametrize("only", ["norms", "biases", r"stage4[.].*", [r"stage4[.]3[.].*", "norms"]])
def test_what_is_not_named_stays_the_same_to_the_bit(only: Any, fit: Fit) -> None:
    module = ImageClassifier(make_classifier(), augment="none")
    before = state_of(module)
    stages = StagedUnfreezing(
        [Stage("head", train=1, epochs=1), Stage("parts", train="all", epochs=2, only=only)],
        rates=Rates(head=3e-3, decay=1.0),
    )
    counted = Probe(
        lambda trainer, module: {key for key, each in module.network.named_parameters() if each.requires_grad}
    )
    fit(module, [stages, counted])
    chosen = keys_of(module, [only] if isinstance(only, str) else only)
    assert counted.seen[-1] == chosen
    after = state_of(module)
    parameters = {key for key, _ in module.network.named_parameters()}
    assert equal(before, after, sorted(parameters - chosen))
    moved = [key for key in chosen if not torch.equal(before[key], after[key])]
    assert len(moved) > 0.9 * len(chosen)
    assert stages.plan.trainable(1) == sum(before[key].numel() for key in chosen)
    assert stages.plan.trainable(1) < stages.plan.total
    assert Plan.from_dict(stages.plan.to_dict()) == stages.plan


def test_norms_of_a_live_group_that_train_nothing_keep_their_statistics(fit: Fit) -> None:
    module = ImageClassifier(make_classifier(), augment="none")
    before = state_of(module)
    stages = [Stage("parts", train="all", epochs=1, only=r"stage4[.].*")]
    fit(module, [StagedUnfreezing(stages, rates=Rates(head=1e-3))])
    after = state_of(module)
    statistics = [key for key in before if "running" in key]
    assert equal(before, after, [key for key in statistics if not key.startswith("stage4")])
    assert not any(torch.equal(before[key], after[key]) for key in statistics if key.startswith("stage4"))


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (Stage("parts", train="all", epochs=1, only="layer9.*"), "'layer9.*' is no parameter of a group that trains"),
        (Stage("parts", train=1, epochs=1, only="norms"), "'norms' is no parameter of a group that trains"),
        (Stage("parts", train="all", epochs=1, only="("), r"only: '\(' is not a pattern"),
    ],
)
def test_what_names_nothing_is_refused(stage: Stage, told: str, fit: Fit) -> None:
    with pytest.raises(UnfreezeError, match=told):
        fit(ImageClassifier(make_classifier()), [StagedUnfreezing([stage])])


@pytest.mark.parametrize("size", [32, 16])
def test_batches_of_one_image_train_and_norms_stand(size: int, fit: Fit) -> None:
    source = make_source(per_class=4, side=size)
    data = ImageDataModule(source, batch_size=1, splits=split_source(source, val_fraction=0.25))
    module = ImageClassifier(make_classifier(), augment="none")
    before = state_of(module)
    fit(module, [StagedUnfreezing([Stage("all", train="all", epochs=1)])], data=data)
    after = state_of(module)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    assert equal(before, after, [key for key in before if "running" in key])


def test_after_a_batch_of_one_norms_count_again() -> None:
    module = ImageClassifier(make_classifier()).train()
    module._use_running_statistics(True)
    norms = [each for each in module.network.modules() if isinstance(each, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    module._use_running_statistics(False)
    assert all(norm.training for norm in norms)


@pytest.mark.parametrize(
    ("typed", "factor"),
    [
        ([], 1.0),
        (["optimizer.lr_batch=16", "optimizer=sgd"], 4.0),
        (["optimizer.lr_batch=16"], 2.0),
        (["optimizer.lr_batch=16", "trainer.accumulate_grad_batches=4", "optimizer=adam"], 4.0),
        (["optimizer.lr_batch=256", "data.batch_size=64", "optimizer=sgd"], 0.25),
    ],
)
def test_rates_go_by_the_global_batch(typed: list[str], factor: float) -> None:
    overrides = ["data=digits", "model=tiny", "trainer.accelerator=cpu", *typed]
    config = check_values(composed(*overrides), overrides)
    plan = build_plan(config, outputs_of(config, build_source(config).tasks)[0])
    assert np.allclose(plan.stages[0].rates, np.array([1e-3]) * factor)
    assert np.allclose(plan.stages[1].rates, np.array([1e-3, 1e-4]) * factor)
