"""The figures of labels against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from unfreeze.evaluation.label_metrics import judge_labels

NAMES = ("animal", "vehicle", "flies", "has legs")
THRESHOLDS = (0.5, 0.3, 0.8, 0.05)


def labelled(images: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = (torch.rand(images, 4, generator=draw) < torch.tensor([0.6, 0.3, 0.1, 0.5])).long()
    return torch.randn(images, 4, generator=draw) + 2 * labels - 1, labels


@pytest.mark.parametrize("thresholds", [None, THRESHOLDS])
def test_figures_of_labels_are_those_of_scikit_learn(thresholds: tuple[float, ...] | None) -> None:
    logits, labels = labelled()
    told = judge_labels(logits, labels, NAMES, thresholds=thresholds)
    scores, truth = logits.double().sigmoid().numpy(), labels.numpy()
    given = scores >= np.array(thresholds or [0.5] * 4)
    for index, name in enumerate(NAMES):
        own, yes, is_true = told["per_label"][name], given[:, index], truth[:, index]
        assert own["precision"] == pytest.approx(reference.precision_score(is_true, yes))
        assert own["recall"] == pytest.approx(reference.recall_score(is_true, yes))
        assert own["f1"] == pytest.approx(reference.f1_score(is_true, yes))
        assert own["ap"] == pytest.approx(reference.average_precision_score(is_true, scores[:, index]))
        assert own["auroc"] == pytest.approx(reference.roc_auc_score(is_true, scores[:, index]))
        assert own["support"] == is_true.sum()
    assert told["f1_macro"] == pytest.approx(reference.f1_score(truth, given, average="macro"))
    assert told["ap_macro"] == pytest.approx(reference.average_precision_score(truth, scores, average="macro"))
    assert told["acc_exact"] == pytest.approx(reference.accuracy_score(truth, given))
    assert told["acc"] == pytest.approx(1 - reference.hamming_loss(truth, given))
    columns = [reference.brier_score_loss(truth[:, i], scores[:, i]) for i in range(4)]
    assert told["brier"] == pytest.approx(np.mean(columns))
    assert told["loss"] == pytest.approx(reference.log_loss(truth.ravel(), scores.ravel()), rel=1e-5)


def test_labels_that_no_image_has_or_that_all_have_are_left_out_of_what_they_have_no_say_in() -> None:
    logits, labels = labelled()
    labels[:, 0], labels[:, 1] = 0, 1
    told = judge_labels(logits, labels, NAMES)
    assert told["per_label"]["animal"]["ap"] is told["per_label"]["animal"]["auroc"] is None
    assert told["per_label"]["vehicle"]["auroc"] is None
    assert told["auroc_macro"] == pytest.approx(np.mean([told["per_label"][name]["auroc"] for name in NAMES[2:]]))


def test_a_single_label_is_judged_as_one_of_several() -> None:
    logits, labels = labelled()
    alone, among = judge_labels(logits[:, 2:3], labels[:, 2:3], NAMES[2:3]), judge_labels(logits, labels, NAMES)
    assert alone["per_label"]["flies"] == among["per_label"]["flies"]
