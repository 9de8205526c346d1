"""A compiled network stays compiled in every stage, however many there are."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from tests.training.conftest import make_classifier
from unfreeze.models.groups import build_layer_groups
from unfreeze.training.callbacks.compiling import CompiledStages
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Rates, Stage

Fit = Callable[..., L.Trainer]
STAGES = [Stage("head", 1, 2), Stage("block", 2, 2), Stage("deeper", 3, 2)]
LIMIT = 4
"""Of compilations of one function; a stage needs two to four: training and validation, and their last batches."""


class Counting:
    """A backend that runs what it is given as it is, and counts."""

    def __init__(self) -> None:
        self.compiled = 0
        self.ran = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*inputs: torch.Tensor) -> Any:
            self.ran += 1
            return graph.forward(*inputs)

        return run


def small_module() -> ImageClassifier:
    """Return a network that compiles in a moment."""
    torch.manual_seed(0)
    layers = {"stem": nn.Conv2d(3, 4, 3), "first": nn.Conv2d(4, 4, 3), "second": nn.Conv2d(4, 4, 3)}
    network = nn.Sequential(OrderedDict({**layers, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}))
    network.add_module("fc", nn.Linear(4, 3))
    made = replace(make_classifier(), network=network, groups=build_layer_groups(network, "fc"), heads=("fc",))
    return ImageClassifier(made, augment="none")


def test_each_stage_runs_what_was_compiled_for_it(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    torch.compiler.reset()
    module, backend = small_module(), Counting()
    module.network.compile(backend=backend)
    forwards, ran = [0, 0, 0], [0, 0, 0]
    stages = StagedUnfreezing(STAGES, rates=Rates(head=1e-3, decay=0.3))

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.count()

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            self.count()

        def count(self):
            forwards[stages.stage] += 1
            ran[stages.stage] = backend.ran - sum(ran[: stages.stage])

    try:
        with torch._dynamo.config.patch(recompile_limit=LIMIT):
            fit(module, [stages, CompiledStages(stages), Count()])
    finally:
        torch.compiler.reset()
    assert ran == forwards, "nothing runs uncompiled"
    assert backend.compiled >= 2 * len(STAGES)
    assert [line.split()[1] for line in caplog.messages if "for the first step" in line] == [
        "head:",
        "block:",
        "deeper:",
    ]
