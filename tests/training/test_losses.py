"""The training loss by plain arithmetic, and weights that even classes out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unfreeze.training.losses import class_weights, weighted_cross_entropy

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0])


def mixed() -> Tensor:
    return 0.7 * F.one_hot(LABELS, 4) + 0.3 * F.one_hot(LABELS.roll(1), 4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_labels_cost_what_torch_says(weights: Tensor | None, label_smoothing: float) -> None:
    loss = weighted_cross_entropy(LOGITS, LABELS, class_weights=weights, label_smoothing=label_smoothing)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=label_smoothing)
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_shares_of_one_cost_what_their_labels_do(weights: Tensor | None, label_smoothing: float) -> None:
    options = {"class_weights": weights, "label_smoothing": label_smoothing}
    shares = F.one_hot(LABELS, 4).float()
    torch.testing.assert_close(
        weighted_cross_entropy(LOGITS, shares, **options), weighted_cross_entropy(LOGITS, LABELS, **options)
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mixed_targets_by_plain_arithmetic(weights: Tensor | None, label_smoothing: float) -> None:
    shares = mixed()
    weight_of = [1.0] * 4 if weights is None else weights.tolist()
    log_probabilities = LOGITS.log_softmax(dim=1)
    total = shown = 0.0
    for row in range(6):
        for label in range(4):
            target = (1 - label_smoothing) * shares[row, label].item() + label_smoothing / 4
            total -= weight_of[label] * target * log_probabilities[row, label].item()
            shown += weight_of[label] * shares[row, label].item()
    loss = weighted_cross_entropy(LOGITS, shares, class_weights=weights, label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(total / shown, rel=1e-5)


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_weighted_each_class_that_is_there_counts_the_same(labels: list[int]) -> None:
    weights = class_weights(torch.tensor(labels), 6)
    assert weights.dtype == torch.float32
    for label in range(6):
        count = labels.count(label)
        total = weights[label].item() * count
        assert total == pytest.approx(len(labels) / 6 if count else 0, rel=1e-5)


def test_even_classes_weigh_one() -> None:
    assert class_weights(torch.arange(12) % 3, 3).tolist() == [1, 1, 1]


def test_without_images_nothing_weighs_anything() -> None:
    assert class_weights(torch.tensor([], dtype=torch.int64), 2).tolist() == [0, 0]


def test_in_mixed_precision_the_loss_is_still_float32s() -> None:
    expected = weighted_cross_entropy(LOGITS.bfloat16().float(), mixed(), class_weights=WEIGHTS, label_smoothing=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = weighted_cross_entropy(LOGITS.bfloat16(), mixed(), class_weights=WEIGHTS, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
