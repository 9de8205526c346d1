"""Test metrics of several tasks."""

import pytest
import torch

from unfreeze.evaluation.class_metrics import class_metrics
from unfreeze.evaluation.metrics import compute_metrics
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.results.result import weakest_class


def test_metrics_of_tasks_and_their_means() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = Outputs((TaskClasses("class", ("a", "b", "c")), TaskClasses("kind", ("x", "y"))))
    logits = torch.randn(50, 5, generator=draw)
    labels = torch.stack([torch.arange(50) % 3, torch.arange(50) % 2], dim=1)
    metrics = compute_metrics(logits, labels, outputs)
    first = class_metrics(logits[:, :3], labels[:, 0], ("a", "b", "c"))
    second = class_metrics(logits[:, 3:], labels[:, 1], ("x", "y"))
    assert metrics["tasks"] == {"class": first, "kind": second}
    assert metrics["f1_macro"] == pytest.approx((first["f1_macro"] + second["f1_macro"]) / 2)
    name, f1 = weakest_class(metrics)
    everything = [own["f1"] for task in (first, second) for own in task["per_class"].values()]
    assert f1 == min(everything)
    assert name.split()[0] in metrics["tasks"]
