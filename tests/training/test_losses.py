"""The training loss by plain arithmetic, and weights that even classes out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from unfreeze.training.losses import class_weights, focal_loss, weighted_cross_entropy

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


class TestFocal:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("soft", [False, True])
    def test_with_gamma_0_it_is_the_cross_entropy(self, soft: bool, weighted: bool, smoothing: float) -> None:
        torch.manual_seed(0)
        logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.randint(4, (6,))
        targets = torch.rand(6, 4, dtype=torch.float64).softmax(dim=1) if soft else labels
        weights = torch.rand(4, dtype=torch.float64) + 0.5 if weighted else None
        ours = focal_loss(logits, targets, gamma=0.0, class_weights=weights, label_smoothing=smoothing)
        theirs = weighted_cross_entropy(logits, targets, class_weights=weights, label_smoothing=smoothing)
        torch.testing.assert_close(ours, theirs)

    def test_by_hand(self) -> None:
        logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]]), torch.tensor([0, 2])
        p = logits.softmax(dim=1)[[0, 1], labels]
        by_hand = (-((1 - p) ** 2) * p.log()).mean()
        torch.testing.assert_close(focal_loss(logits, labels, gamma=2.0), by_hand)

    def test_of_two_classes_it_is_torchvisions(self) -> None:
        torch.manual_seed(0)
        difference, labels = torch.randn(20), torch.randint(2, (20,))
        logits = torch.stack([torch.zeros(20), difference], dim=1)
        theirs = sigmoid_focal_loss(difference, labels.float(), alpha=-1, gamma=1.5, reduction="mean")
        torch.testing.assert_close(focal_loss(logits, labels, gamma=1.5), theirs)

    def test_its_gradient_is_finite_where_an_image_is_told_for_certain(self) -> None:
        logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
        focal_loss(logits, torch.tensor([0, 0]), gamma=0.5).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
