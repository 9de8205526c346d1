"""The figures of a test, whatever a network was asked."""

import pytest
import torch

from unfreeze.evaluation.class_metrics import judge_classes
from unfreeze.evaluation.metrics import judge_answers, weakest_class
from unfreeze.models.outputs import Outputs, TaskClasses


def test_tasks_are_judged_each_for_itself_and_their_figures_averaged() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = Outputs((TaskClasses("class", ("a", "b", "c")), TaskClasses("kind", ("x", "y"))))
    logits = torch.randn(50, 5, generator=draw)
    labels = torch.stack([torch.arange(50) % 3, torch.arange(50) % 2], dim=1)
    told = judge_answers(logits, labels, outputs)
    first = judge_classes(logits[:, :3], labels[:, 0], ("a", "b", "c"))
    second = judge_classes(logits[:, 3:], labels[:, 1], ("x", "y"))
    assert told["tasks"] == {"class": first, "kind": second}
    assert told["f1_macro"] == pytest.approx((first["f1_macro"] + second["f1_macro"]) / 2)
    name, f1 = weakest_class(told)
    everything = [own["f1"] for task in (first, second) for own in task["per_class"].values()]
    assert f1 == min(everything)
    assert name.split()[0] in told["tasks"]
