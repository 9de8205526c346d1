"""Multi-label metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from unfreeze.evaluation.multilabel_metrics import multilabel_metrics

NAMES = ("animal", "vehicle", "flies", "has legs")
THRESHOLDS = (0.5, 0.3, 0.8, 0.05)


def labelled(images: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, 4, generator=draw) < torch.tensor([0.6, 0.3, 0.1, 0.5])).long()
    return torch.randn(images, 4, generator=draw) + 2 * labels - 1, labels


@pytest.mark.parametrize("thresholds", [None, THRESHOLDS])
def test_figures_of_labels_are_those_of_scikit_learn(thresholds: tuple[float, ...] | None) -> None:
    logits, labels = labelled()
    metrics = multilabel_metrics(logits, labels, NAMES, thresholds=thresholds)
    scores, truth = logits.double().sigmoid().numpy(), labels.numpy()
    predicted = scores >= np.array(thresholds or [0.5] * 4)
    for index, name in enumerate(NAMES):
        own, yes, is_true = metrics["per_label"][name], predicted[:, index], truth[:, index]
        assert own["precision"] == pytest.approx(reference.precision_score(is_true, yes))
        assert own["recall"] == pytest.approx(reference.recall_score(is_true, yes))
        assert own["f1"] == pytest.approx(reference.f1_score(is_true, yes))
        assert own["ap"] == pytest.approx(reference.average_precision_score(is_true, scores[:, index]))
        assert own["auroc"] == pytest.approx(reference.roc_auc_score(is_true, scores[:, index]))
        assert own["support"] == is_true.sum()
    assert metrics["f1_macro"] == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert metrics["ap_macro"] == pytest.approx(reference.average_precision_score(truth, scores, average="macro"))
    assert metrics["acc_exact"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert metrics["acc"] == pytest.approx(1 - reference.hamming_loss(truth, predicted))
    columns = [reference.brier_score_loss(truth[:, i], scores[:, i]) for i in range(4)]
    assert metrics["brier"] == pytest.approx(np.mean(columns))
    assert metrics["loss"] == pytest.approx(reference.log_loss(truth.ravel(), scores.ravel()), rel=1e-5)


def test_undefined_areas_are_left_out_of_means() -> None:
    logits, labels = labelled()
    labels[:, 0], labels[:, 1] = 0, 1
    metrics = multilabel_metrics(logits, labels, NAMES)
    assert metrics["per_label"]["animal"]["ap"] is metrics["per_label"]["animal"]["auroc"] is None
    assert metrics["per_label"]["vehicle"]["auroc"] is None
    assert metrics["auroc_macro"] == pytest.approx(np.mean([metrics["per_label"][name]["auroc"] for name in NAMES[2:]]))


def test_a_single_label_has_the_metrics_of_one_of_several() -> None:
    logits, labels = labelled()
    alone, among = (
        multilabel_metrics(logits[:, 2:3], labels[:, 2:3], NAMES[2:3]),
        multilabel_metrics(logits, labels, NAMES),
    )
    assert alone["per_label"]["flies"] == among["per_label"]["flies"]
