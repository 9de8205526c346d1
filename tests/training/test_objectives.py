"""What each objective minimises, by hand or by a library, and what it says of answers."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from unfreeze.data.loader import Batch
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.training.losses import (
    distillation_loss,
    focal_loss,
    multilabel_loss,
    positive_weights,
    similarity_loss,
    weighted_cross_entropy,
)
from unfreeze.training.metrics import best_thresholds
from unfreeze.training.objectives import Classify, Distill, Multilabel, Multitask, Objective

LABELS = Outputs((TaskClasses("label", ("a", "b", "c")),), multilabel=True)
TASKS = Outputs((TaskClasses("class", ("a", "b", "c")), TaskClasses("kind", ("x", "y"))))
IMAGES = 12


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(labels: Tensor, **more: Tensor) -> Batch:
    return Batch(torch.empty(0), labels, torch.arange(len(labels)), **more)


def several_labels() -> Tensor:
    return (draws(IMAGES, 3, seed=5) > 0).long()


def two_tasks() -> Tensor:
    return torch.stack([torch.arange(IMAGES) % 3, torch.arange(IMAGES) % 2], dim=1)


class TestFormulas:
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_distillation_by_plain_arithmetic(self, temperature: float) -> None:
        student, teacher = draws(5, 3), draws(5, 3, seed=1) * 3
        total = 0.0
        for row in range(5):
            p = np.exp(teacher[row].double().numpy() / temperature)
            q = np.exp(student[row].double().numpy() / temperature)
            p, q = p / p.sum(), q / q.sum()
            total += float((p * np.log(p / q)).sum())
        loss = distillation_loss(student, teacher, temperature=temperature)
        torch.testing.assert_close(loss, torch.tensor(temperature**2 * total / 5), rtol=1e-5, atol=1e-6)

    def test_distillation_from_oneself_costs_nothing_and_pulls_nowhere(self) -> None:
        logits = draws(5, 3).requires_grad_()
        loss = distillation_loss(logits, logits.detach(), temperature=4.0)
        loss.backward()
        assert abs(float(loss.detach())) < 1e-6
        assert logits.grad is not None
        assert logits.grad.abs().max() < 1e-6

    def test_similarity_by_plain_arithmetic_whatever_the_widths(self) -> None:
        student, teacher = draws(6, 4), draws(6, 9, seed=1)
        matrices = []
        for features in (student.double().numpy(), teacher.double().numpy()):
            alike = features @ features.T
            matrices.append(alike / np.sqrt((alike**2).sum(axis=1, keepdims=True)))
        expected = ((matrices[0] - matrices[1]) ** 2).sum() / 6
        assert float(similarity_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)
        turned, _ = torch.linalg.qr(draws(9, 9, seed=2))
        assert float(similarity_loss(3 * teacher @ turned, teacher)) == pytest.approx(0, abs=1e-5)

    def test_labels_cost_the_binary_cross_entropy(self) -> None:
        logits, labels, weights = draws(IMAGES, 3), several_labels(), torch.tensor([2.0, 1.0, 0.5])
        expected = F.binary_cross_entropy_with_logits(logits, 0.8 * labels + 0.1, pos_weight=weights)
        torch.testing.assert_close(
            multilabel_loss(logits, labels, positive_weights=weights, label_smoothing=0.2), expected
        )

    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_the_focal_loss_of_labels_is_torchvisions(self, gamma: float) -> None:
        logits, labels = draws(IMAGES, 3), several_labels()
        expected = sigmoid_focal_loss(logits, labels.float(), alpha=-1, gamma=gamma, reduction="mean")
        torch.testing.assert_close(multilabel_loss(logits, labels, gamma=gamma), expected)

    def test_weights_even_having_a_label_and_not_having_it_out(self) -> None:
        labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
        assert positive_weights(labels).tolist() == [3, 1, 1]


class TestLosses:
    def test_a_student_pays_for_labels_and_for_its_teacher(self) -> None:
        logits, said, labels = draws(IMAGES, 3), draws(IMAGES, 3, seed=1), torch.arange(IMAGES) % 3
        objective = Distill(("a", "b", "c"), alpha=0.3, temperature=2.0, label_smoothing=0.1)
        expected = 0.7 * F.cross_entropy(logits, labels, label_smoothing=0.1)
        expected += 0.3 * distillation_loss(logits, said, temperature=2.0)
        torch.testing.assert_close(objective.loss(logits, batch_of(labels, soft_targets=said)), expected)

    def test_a_student_of_features_pays_for_what_its_head_sees(self) -> None:
        logits, features, said = draws(IMAGES, 3), draws(IMAGES, 5, seed=1), draws(IMAGES, 7, seed=2)
        labels = torch.arange(IMAGES) % 3
        objective = Distill(("a", "b", "c"), on_features=True, alpha=1.0)
        loss = objective.loss(logits, batch_of(labels, soft_targets=said), features)
        torch.testing.assert_close(loss, similarity_loss(features, said))

    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    def test_tasks_cost_the_weighted_mean_of_what_each_costs(self, gamma: float) -> None:
        logits, labels = draws(IMAGES, 5), two_tasks()
        objective = Multitask(TASKS, task_weights={"kind": 3.0}, gamma=gamma)
        single = focal_loss if gamma else weighted_cross_entropy
        options = {"gamma": gamma} if gamma else {}
        first = single(logits[:, :3], labels[:, 0], **options)
        second = single(logits[:, 3:], labels[:, 1], **options)
        torch.testing.assert_close(objective.loss(logits, batch_of(labels)), (first + 3 * second) / 4)

    @pytest.mark.parametrize(
        ("objective", "labels"),
        [
            (Classify(("a", "b", "c")), torch.arange(IMAGES) % 3),
            (Multitask(TASKS), two_tasks()),
            (Multilabel(LABELS), several_labels()),
        ],
        ids=["classify", "multitask", "multilabel"],
    )
    def test_a_batch_that_is_mixed_by_nothing_costs_and_shows_what_its_labels_do(
        self, objective: Objective, labels: Tensor
    ) -> None:
        logits = draws(IMAGES, len(objective.outputs))
        targets = objective.mixed_targets(labels, torch.ones(IMAGES))
        mixed = batch_of(labels, targets=targets)
        torch.testing.assert_close(objective.loss(logits, mixed), objective.loss(logits, batch_of(labels)))
        assert torch.equal(objective.dominant_labels(targets), labels)
        halves = objective.mixed_targets(labels, torch.full((IMAGES,), 0.25))
        torch.testing.assert_close(halves, 0.25 * targets + 0.75 * targets.roll(1, 0))

    def test_validation_losses_average_to_what_training_minimises(self) -> None:
        logits, labels = draws(IMAGES, 5), two_tasks()
        objective = Multitask(TASKS, task_weights={"class": 2.0})
        torch.testing.assert_close(objective.losses(logits, labels).mean(), objective.loss(logits, batch_of(labels)))


class TestAnswers:
    def test_tasks_are_logged_each_and_as_their_mean(self) -> None:
        logits, labels = draws(IMAGES, 5), two_tasks()
        objective = Multitask(TASKS)
        objective.update(logits, labels)
        told = objective.compute()
        right = objective.right(logits, labels).float()
        torch.testing.assert_close(told["val/class/acc"], right[:, 0].mean())
        torch.testing.assert_close(told["val/kind/acc"], right[:, 1].mean())
        torch.testing.assert_close(told["val/acc"], right.mean())
        objective.update(logits[:1], labels[:1])
        assert float(objective.compute()["val/class/acc"]) == float(right[0, 0]), "the next validation begins anew"

    def test_thresholds_have_the_best_f1_that_any_has(self) -> None:
        scores = draws(60, 3).sigmoid().numpy()
        labels = (scores + 0.6 * draws(60, 3, seed=1).numpy() > 0.7).astype(np.int64)
        for column, threshold in enumerate(best_thresholds(scores, labels)):
            own, truth = scores[:, column], labels[:, column]
            best = max(f1_score(truth, own >= at) for at in own)
            assert f1_score(truth, own >= threshold) == pytest.approx(best)
            assert threshold not in own

    def test_thresholds_that_validation_chose_stand_in_the_checkpoint(self) -> None:
        objective = Multilabel(LABELS)
        scores, labels = torch.tensor([[0.2, 0.1, 0.9], [0.3, 0.2, 0.8]]), torch.tensor([[0, 0, 0], [1, 0, 1]])
        objective.update(scores.logit(), labels)
        assert 0 <= float(objective.compute()["val/acc"]) <= 1
        assert objective.state_dict()["thresholds"].tolist() == pytest.approx([0.25, 0.5, 0.4])

    @pytest.mark.parametrize("gap", [1, 2])
    def test_outputs_come_back_from_plain_values(self, gap: int) -> None:
        for outputs in itertools.islice((LABELS, TASKS, Outputs.of(("a", "b"))), None, None, gap):
            assert Outputs.from_record(outputs.to_record()) == outputs
