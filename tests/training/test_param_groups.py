"""Stepping the live groups alone does what stepping all of them does."""

import contextlib
import copy

import pytest
import torch

from tests.training.conftest import make_classifier
from unfreeze.training.param_groups import OptimizerSpec, build_optimizer, build_param_groups
from unfreeze.training.step_savings import only_live_groups


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_live_groups_alone_step_to_the_bits_of_all(name: str) -> None:
    torch.manual_seed(0)
    spec, images = OptimizerSpec(name), torch.randn(4, 3, 32, 32)
    whole = make_classifier(dropout=0.0)
    whole.freeze_all_but([group.name for group in whole.groups[:2]])
    part = copy.deepcopy(whole)
    optimizers = []
    for classifier in (whole, part):
        optimizer = build_optimizer(spec, build_param_groups(classifier, weight_decay=0.1))
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizers.append(optimizer)
    for _ in range(3):
        for classifier in (whole, part):
            classifier.network(images).square().sum().backward()
        optimizers[0].step()
        with only_live_groups(optimizers[1]):
            optimizers[1].step()
    for a, b in zip(whole.network.parameters(), part.network.parameters(), strict=True):
        assert torch.equal(a, b)
    live = sum(parameter.requires_grad for parameter in part.network.parameters())
    assert len(optimizers[1].state) == live < len(list(part.network.parameters()))


def test_all_groups_are_there_again_after_an_error() -> None:
    classifier = make_classifier()
    classifier.freeze_all_but([classifier.groups[0].name])
    optimizer = build_optimizer(OptimizerSpec(), build_param_groups(classifier, weight_decay=0.1))
    groups = optimizer.param_groups
    seen = set()
    with contextlib.suppress(RuntimeError), only_live_groups(optimizer):
        seen = {group["layer_group"] for group in optimizer.param_groups}
        raise RuntimeError
    assert seen == {classifier.groups[0].name}
    assert optimizer.param_groups is groups
