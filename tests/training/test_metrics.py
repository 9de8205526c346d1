"""What validation says of answers is what the test would say of the same answers, whichever classes occur."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unfreeze.evaluation.metrics import compute_metrics, multilabel_metrics
from unfreeze.models.outputs import Outputs
from unfreeze.training.metrics import compute_and_reset, label_metrics, validation_metrics

NAMES = ("a", "b", "c", "d")


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def said_by_the_test(figures: dict[str, Any], said: dict[str, Tensor]) -> dict[str, Any]:
    return {key: pytest.approx(figures[key.removeprefix("val/")] or 0.0, abs=1e-6) for key in said}


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 3, 2, 1], [0, 0, 1, 1, 1, 0, 0], [2, 2, 2, 2, 2, 2, 2]])
@pytest.mark.parametrize("seed", range(3))
def test_classes(labels: list[int], seed: int) -> None:
    metrics, truth = validation_metrics(4), torch.tensor(labels)
    for _ in range(2):  # the second time from the start
        logits = draws(7, 4, seed=seed)
        for rows in (slice(0, 3), slice(3, None)):
            metrics.update(logits[rows], truth[rows])
        said = {key: value.item() for key, value in compute_and_reset(metrics).items()}
        assert said.keys() == {
            f"val/{key}" for key in ("acc", "acc_balanced", "precision_macro", "recall_macro", "f1_macro")
        }
        assert said == said_by_the_test(compute_metrics(logits, truth, Outputs.of(NAMES)), said)


def columns(*share: int) -> Tensor:
    return torch.tensor([[int(number < each) for each in share] for number in range(7)])


@pytest.mark.parametrize("truth", [columns(3, 2, 5, 1), columns(3, 0, 7, 2), columns(0, 0, 4, 7), columns(0, 0, 0, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_labels(truth: Tensor, seed: int) -> None:
    metrics, logits = label_metrics(4), draws(7, 4, seed=seed)
    for rows in (slice(0, 3), slice(3, None)):
        metrics.update(logits[rows].sigmoid(), truth[rows])
    said = {key: value.item() for key, value in compute_and_reset(metrics).items()}
    assert {"val/acc", "val/acc_exact", "val/f1_macro", "val/ap_macro", "val/auroc_macro"} <= said.keys()
    assert said == said_by_the_test(multilabel_metrics(logits, truth, NAMES), said)
