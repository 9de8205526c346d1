"""A training step: what it augments, mixes, weighs and counts."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import CatMetric

from tests.data.augment.noise import smooth_noise
from tests.training.conftest import Probe, make_classifier, quiet_trainer
from unfreeze.data.augment.augment import augment_batch
from unfreeze.data.augment.draws import uniform_draws
from unfreeze.data.augment.mixing import mix_batch, mix_targets
from unfreeze.data.augment.presets import Augmentation, augmentation
from unfreeze.data.loader import Batch, EvalLoader, TrainLoader
from unfreeze.data.store.pixels import ResidentPixels
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.training.losses import class_weights
from unfreeze.training.module import ImageClassifier
from unfreeze.training.objectives import Classify, Multitask

CLASSES = 3
NAMES = ("class0", "class1", "class2")
COUNT = 8
LABELS = torch.arange(COUNT) % CLASSES
ALWAYS_MIXED = augmentation("light", mixup=1.0, cutmix=1.0)


def raw_batch(count: int = COUNT) -> Batch:
    return Batch(smooth_noise(count, 36, 36), LABELS[:count], torch.arange(count) * 7)


def module_in(state: str, **options: Any) -> ImageClassifier:
    """Return a module whose trainer trains, validates or tests."""
    module = ImageClassifier(make_classifier(CLASSES, dropout=None), **options)
    module.trainer = quiet_trainer()
    setattr(module.trainer, state, True)
    return module.train(state == "training")


def seen(module: ImageClassifier, batch: Batch) -> Batch:
    moved = module.transfer_batch_to_device(batch, torch.device("cpu"), 0)
    return module.on_after_batch_transfer(moved, 0)


class TestBatches:
    @pytest.mark.parametrize("how", ["light", "strong", ALWAYS_MIXED])
    def test_in_training_they_are_augmented_mixed_and_normalised(self, how: Any) -> None:
        module, batch = module_in("training", augment=how, seed=5), raw_batch()
        how = how if isinstance(how, Augmentation) else augmentation(how)
        draws = uniform_draws(seed=5, epoch=0, indices=batch.indices)
        crop_px = module.preprocessing.crop_px
        images = augment_batch(module.preprocessing.resize(batch.images), draws, how=how, crop_px=crop_px, mirror=True)
        targets = None
        if how.is_mixing:
            images, shares = mix_batch(images, draws, mixup=how.mixup, cutmix=how.cutmix, probability=how.mix)
            targets = mix_targets(F.one_hot(LABELS, CLASSES).float(), shares)
        result = seen(module, batch)
        assert torch.equal(result.images, module.preprocessing.normalize(images))
        assert torch.equal(result.labels, LABELS)
        assert targets is None if result.targets is None else torch.equal(result.targets, targets)

    @pytest.mark.parametrize("how", ["strong", ALWAYS_MIXED])
    def test_the_same_seed_epoch_and_images_give_the_same_to_the_bit(self, how: Any) -> None:
        first, second = (seen(module_in("training", augment=how, seed=5), raw_batch()) for _ in range(2))
        assert first.targets is not None and second.targets is not None
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)
        other = seen(module_in("training", augment=how, seed=6), raw_batch())
        assert not torch.equal(other.images, first.images)

    @pytest.mark.parametrize("state", ["validating", "testing"])
    def test_outside_of_training_nothing_is_drawn_or_mixed(self, state: str) -> None:
        module = module_in(state, augment=ALWAYS_MIXED)
        result = seen(module, raw_batch())
        assert result.targets is None
        assert torch.equal(result.images, module.preprocessing(raw_batch().images))

    def test_an_image_alone_stays_its_own_class(self) -> None:
        result = seen(module_in("training", augment=ALWAYS_MIXED), raw_batch(1))
        assert result.targets is not None
        assert result.targets.tolist() == [[1, 0, 0]]

    def test_the_caller_keeps_its_pixels(self) -> None:
        batch = raw_batch()
        before = batch.images.clone()
        seen(module_in("training", augment="strong"), batch)
        assert torch.equal(batch.images, before)


class TestStep:
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_a_mixed_batch_costs_what_plain_arithmetic_says(self, label_smoothing: float) -> None:
        module = module_in("training", augment=ALWAYS_MIXED, objective=Classify(NAMES, label_smoothing=label_smoothing))
        batch = seen(module, raw_batch())
        assert batch.targets is not None
        log_probabilities = module(batch.images).log_softmax(dim=1)
        smooth = (1 - label_smoothing) * batch.targets + label_smoothing / CLASSES
        expected = -(smooth * log_probabilities).sum(dim=1).mean()
        torch.testing.assert_close(module.training_step(batch, 0), expected)

    def test_accuracy_counts_what_a_mixed_image_shows_most_of(self) -> None:
        module = module_in("training")
        images = torch.zeros(4, 3, 32, 32)
        answer = int(module(images).argmax(dim=1)[0])
        other = (answer + 1) % CLASSES
        targets = torch.zeros(4, CLASSES)
        targets[:, answer] = torch.tensor([1.0, 0.6, 0.4, 0.0])
        targets[:, other] = 1 - targets[:, answer]
        module.training_step(Batch(images, torch.full((4,), other), torch.arange(4), targets), 0)
        assert module.train_means.means()["acc"] == 0.5

    def test_class_weights_count_in_training_alone(self) -> None:
        weights = class_weights(torch.tensor([0, 0, 0, 0, 1, 2]), CLASSES)
        module = module_in("training", objective=Classify(NAMES, weights=weights), augment="none")
        batch = seen(module, raw_batch())
        logits = module(batch.images)
        torch.testing.assert_close(module.training_step(batch, 0), F.cross_entropy(logits, LABELS, weight=weights))
        module.eval()
        module.validation_step(batch, 0)
        torch.testing.assert_close(module.val_loss.compute(), F.cross_entropy(module(batch.images), LABELS))

    def test_class_weights_follow_the_module_but_stand_in_no_checkpoint(self) -> None:
        objective = Classify(NAMES, weights=torch.ones(CLASSES))
        module = ImageClassifier(make_classifier(CLASSES), objective=objective)
        assert not any("weights" in key for key in module.state_dict())
        module.to("meta")
        assert objective.weights is not None
        assert objective.weights.device.type == "meta"


def losses_of(how: Augmentation) -> list[Tensor]:
    """Return the training loss after each step of a fit on weighted and balanced batches."""
    labels = (torch.arange(12) > 7).long() + (torch.arange(12) > 10).long()
    images, indices = smooth_noise(12, 36, 36), np.arange(12)
    torch.manual_seed(0)
    objective = Classify(NAMES, weights=class_weights(labels, CLASSES))
    module = ImageClassifier(make_classifier(CLASSES), augment=how, objective=objective)
    probe = Probe(lambda trainer, module: module.train_means.means()["loss"])
    trainer = quiet_trainer(max_epochs=2, log_every_n_steps=1, callbacks=[probe])
    pixels = ResidentPixels(images.permute(0, 2, 3, 1).contiguous())
    train = TrainLoader(pixels, labels, indices, batch_size=6, seed=0, balance=True)
    trainer.fit(module, train, EvalLoader(pixels, labels, indices, batch_size=12))
    return probe.seen


def test_a_fit_on_mixed_weighted_and_balanced_batches_repeats_to_the_bit() -> None:
    first = losses_of(ALWAYS_MIXED)
    assert len(first) == 4
    assert torch.stack(first).isfinite().all()
    assert losses_of(ALWAYS_MIXED) == first
    assert losses_of(augmentation("light")) != first


def test_losses_are_means_over_images_not_over_batches() -> None:
    images, labels, indices = smooth_noise(9, 36, 36), torch.arange(9) % CLASSES, np.arange(9)
    pixels = ResidentPixels(images.permute(0, 2, 3, 1).contiguous())
    torch.manual_seed(0)
    module = ImageClassifier(make_classifier(CLASSES), augment="none", lr=1e-12)
    trainer = quiet_trainer()
    loader = EvalLoader(pixels, labels, indices, batch_size=8)
    assert [len(batch.labels) for batch in loader] == [5, 4]
    seen = trainer.validate(module, loader, verbose=False)[0]["val/loss"]
    with torch.no_grad():
        logits = module.eval()(module.preprocessing(images))
    assert seen == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_ranks_gather_what_a_test_has_found_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards Lightning has moved the module to the CPU, where NCCL gathers nothing."""
    gathered_while: list[bool] = []
    compute = CatMetric.compute

    def noted(metric: CatMetric) -> Tensor:
        gathered_while.append(trainer.testing)
        return compute(metric)

    module, trainer = ImageClassifier(make_classifier(CLASSES, dropout=None)), quiet_trainer()
    held = module._test_predictions
    for metric in (held._logits, held._labels, held._indices):
        monkeypatch.setattr(metric, "compute", partial(noted, metric))
    images = smooth_noise(COUNT, 36, 36)
    pixels = ResidentPixels(images.permute(0, 2, 3, 1).contiguous())
    loader = EvalLoader(pixels, LABELS, np.arange(COUNT)[::-1].copy(), batch_size=3)
    trainer.test(module, loader, verbose=False)
    logits, labels, indices = module.test_predictions()
    assert gathered_while == [True] * 3
    assert torch.equal(indices, torch.arange(COUNT))
    assert torch.equal(labels, LABELS)
    with torch.no_grad():
        direct = module.eval()(module.preprocessing(images))
    torch.testing.assert_close(logits, direct)


def test_what_tasks_count_stays_on_the_device_of_the_network() -> None:
    outputs = Outputs((TaskClasses("tone", ("dark", "bright")), TaskClasses("hue", ("blue", "red", "green"))))
    objective = Multitask(outputs, task_weights={"tone": 3.0})
    assert objective.weight_of_task.tolist() == [0.75, 0.25]
    assert objective.to("meta").weight_of_task.is_meta
    assert not objective.state_dict()
