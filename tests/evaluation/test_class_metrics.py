"""Class metrics against scikit-learn, on random and on degenerate predictions."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from unfreeze.evaluation.class_metrics import class_metrics

AVERAGES = ("macro", "micro", "weighted")


def draw_predictions(images: int, classes: int, *, seed: int = 0, skill: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=draw)
    logits = torch.randn(images, classes, generator=draw)
    return logits + skill * torch.nn.functional.one_hot(labels, classes), labels


def cases() -> Iterator[Any]:
    for seed in range(3):
        yield pytest.param(*draw_predictions(300, 7, seed=seed), id=f"random {seed}")
    yield pytest.param(*draw_predictions(200, 2), id="two classes")
    yield pytest.param(*draw_predictions(50, 3, skill=50), id="all right")
    logits, labels = draw_predictions(50, 3)
    yield pytest.param(-20.0 * torch.nn.functional.one_hot(labels, 3), labels, id="all wrong")
    yield pytest.param(torch.zeros(50, 3), labels, id="constant probabilities")
    yield pytest.param(logits, labels.clamp(max=1), id="one class absent, yet predicted")
    yield pytest.param(logits - 50 * torch.tensor([0, 0, 1]), labels.clamp(max=1), id="one class absent everywhere")
    yield pytest.param(logits, torch.full_like(labels, 2), id="one class only")
    yield pytest.param(logits[:1], labels[:1], id="one image")
    yield pytest.param(1e4 * logits, labels, id="certain of everything")
    rare = (torch.arange(1000) % 50 == 0).long()
    yield pytest.param(torch.tensor([5.0, 0.0]).repeat(1000, 1), rare, id="a class never predicted")


@pytest.mark.parametrize(("logits", "labels"), list(cases()))
def test_figures_are_those_of_scikit_learn(logits: Tensor, labels: Tensor) -> None:
    classes = logits.shape[1]
    numbers, names = range(classes), [f"class {number}" for number in range(classes)]
    metrics = class_metrics(logits, labels, names, temperature=2.0)
    truth, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    scores = logits.double().softmax(dim=1).numpy()
    same = {"abs": 1e-6, "rel": 0}
    assert metrics["acc"] == pytest.approx(reference.accuracy_score(truth, predicted), **same)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of undefined metrics
        assert metrics["acc_balanced"] == pytest.approx(reference.balanced_accuracy_score(truth, predicted), **same)
    for average in AVERAGES:
        options: dict[str, Any] = {"average": average, "zero_division": 0}
        assert metrics[f"precision_{average}"] == pytest.approx(
            reference.precision_score(truth, predicted, **options), **same
        )
        assert metrics[f"recall_{average}"] == pytest.approx(
            reference.recall_score(truth, predicted, **options), **same
        )
        assert metrics[f"f1_{average}"] == pytest.approx(reference.f1_score(truth, predicted, **options), **same)
    assert metrics["mcc"] == pytest.approx(reference.matthews_corrcoef(truth, predicted), **same)
    if logits.abs().max() < 30:  # scikit-learn clips what is less likely
        assert metrics["loss"] == pytest.approx(reference.log_loss(truth, scores, labels=numbers), rel=1e-6)
    assert metrics["brier"] == pytest.approx(reference.brier_score_loss(truth, scores, labels=list(numbers)), **same)
    softer = (logits.double() / 2).softmax(dim=1).numpy()
    assert metrics["brier_scaled"] == pytest.approx(
        reference.brier_score_loss(truth, softer, labels=list(numbers)), **same
    )
    assert metrics["confusion"] == reference.confusion_matrix(truth, predicted, labels=list(numbers)).tolist()
    assert (metrics["acc_top5"] is None) == (classes < 6)
    if classes > 5:
        top = reference.top_k_accuracy_score(truth, scores, k=5, labels=list(numbers))
        assert metrics["acc_top5"] == pytest.approx(top, **same)
    rows = reference.precision_recall_fscore_support(truth, predicted, labels=list(numbers), zero_division=0)
    areas = []
    for number, name in enumerate(names):
        own, is_own = metrics["per_class"][name], truth == number
        assert [own[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [r[number] for r in rows]
        )
        assert own["predicted"] == (predicted == number).sum()
        if is_own.any():
            ap = reference.average_precision_score(is_own, scores[:, number])
            assert own["ap"] == pytest.approx(ap, **same)
        if is_own.any() and not is_own.all():
            auroc = reference.roc_auc_score(is_own, scores[:, number])
            assert own["auroc"] == pytest.approx(auroc, **same)
            areas.append(auroc)
        else:
            assert own["auroc"] is None
    assert metrics["auroc_macro"] == (pytest.approx(np.mean(areas), **same) if areas else None)
    if len(areas) == classes > 2:
        assert metrics["auroc_macro"] == pytest.approx(
            reference.roc_auc_score(truth, scores, multi_class="ovr"), **same
        )


def test_every_figure_is_a_share_or_none() -> None:
    for case in cases():
        logits, labels = case.values
        metrics = class_metrics(logits, labels, [str(number) for number in range(logits.shape[1])])
        for key in ("acc", "acc_balanced", "precision_macro", "f1_macro", "ece", "ap_macro"):
            assert 0 <= metrics[key] <= 1, (case.id, key)
        for low, high in metrics["intervals"].values():
            assert 0 <= low <= high <= 1


def test_the_matrix_of_very_many_classes_is_left_out() -> None:
    logits, labels = draw_predictions(300, 101)
    assert class_metrics(logits, labels, [str(number) for number in range(101)])["confusion"] is None
