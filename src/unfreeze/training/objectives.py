"""Objectives: the loss that is minimised, and the metrics of validation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MultilabelAveragePrecision

from unfreeze.data.augment.mixing import mix_targets
from unfreeze.data.loader import Batch
from unfreeze.models.outputs import DEFAULT_THRESHOLD, Outputs
from unfreeze.training.losses import (
    distillation_loss,
    focal_loss,
    multilabel_loss,
    similarity_loss,
    weighted_cross_entropy,
)
from unfreeze.training.metrics import best_thresholds, compute_and_reset, joined, label_metrics, validation_metrics


class Objective(nn.Module, ABC):
    """The loss that is minimised, and the metrics of predictions.

    Args:
        outputs: Meaning of the logits.

    Attributes:
        outputs: Meaning of the logits.
        sees_features: Whether the loss needs the input of the head.
    """

    sees_features = False

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, a scalar in nats per image.

        Args:
            logits: Shape (N, C).
            batch: With labels, or targets where it is mixed.
            features: Input of the head, shape (N, D), if `sees_features`.
        """

    @abstractmethod
    def mixed_targets(self, labels: Tensor, shares: Tensor) -> Tensor:
        """Return the targets of a mixed batch, float32, shape (N, C).

        Args:
            labels: The labels of the batch.
            shares: Share of each image itself, the rest being the image mixed in, in [0, 1], shape (N,).
        """

    @abstractmethod
    def dominant_labels(self, targets: Tensor) -> Tensor:
        """Return the labels of the dominant parts of mixed images."""

    @abstractmethod
    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return which predictions are right, bool, shape (N, predictions per image)."""

    @abstractmethod
    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the plain loss of each image for validation, shape (N,), in nats."""

    @abstractmethod
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Update the validation metrics with a batch of logits, float32."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the validation metrics by their logged names, and reset them."""


class Classify(Objective):
    """One class per image.

    Args:
        classes: Names of the classes, or outputs of one task.
        gamma: Of the focal loss; 0 is the cross entropy.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        weights: Weight of each class in the training loss, float32, shape (C,), as `training.losses.class_weights`
            returns them; None for equal weights.
    """

    def __init__(
        self,
        classes: Sequence[str] | Outputs,
        *,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(Outputs.of(classes))
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.metrics = validation_metrics(len(self.outputs))

    def loss(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the cross entropy or the focal loss."""
        targets = batch.labels if batch.targets is None else batch.targets
        weights, smoothing = self.weights, self.label_smoothing
        if self.gamma:
            return focal_loss(logits, targets, gamma=self.gamma, class_weights=weights, label_smoothing=smoothing)
        return weighted_cross_entropy(logits, targets, class_weights=weights, label_smoothing=smoothing)

    def mixed_targets(self, labels: Tensor, shares: Tensor) -> Tensor:
        """Return the share of each class."""
        return mix_targets(F.one_hot(labels, len(self.outputs)).float(), shares)

    def dominant_labels(self, targets: Tensor) -> Tensor:
        """Return classes, int64, shape (N,)."""
        return targets.argmax(dim=1)

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return shape (N, 1)."""
        return (logits.argmax(dim=1) == labels)[:, None]

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return cross entropies."""
        return F.cross_entropy(logits, labels, reduction="none")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Update the metrics."""
        self.metrics.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return accuracy and macro metrics."""
        return compute_and_reset(self.metrics)


class Distill(Classify):
    """One class per image, learned from labels and a teacher's soft targets.

    The loss is `(1 - alpha)` of that of `Classify` and `alpha` of the distance to the teacher: of the logits (Hinton et
    al. 2015), or of the similarities between the images of a batch (Tung and Mori 2019).

    Args:
        classes: As for `Classify`.
        on_features: Whether the soft targets are features instead of logits of the same classes.
        temperature: Of the softmax of logits, > 0.
        alpha: Weight of the teacher's term, in [0, 1].
        gamma: As for `Classify`.
        label_smoothing: As for `Classify`.
        weights: As for `Classify`; the teacher's term is not weighted by class.
    """

    def __init__(
        self,
        classes: Sequence[str] | Outputs,
        *,
        on_features: bool = False,
        temperature: float = 4.0,
        alpha: float = 0.7,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(classes, gamma=gamma, label_smoothing=label_smoothing, weights=weights)
        self.sees_features = on_features
        self.temperature = temperature
        self.alpha = alpha

    def loss(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the blend of both losses."""
        assert batch.soft_targets is not None, "a batch without soft targets"
        if features is not None:
            distance = similarity_loss(features, batch.soft_targets)
        else:
            distance = distillation_loss(logits, batch.soft_targets, temperature=self.temperature)
        return (1 - self.alpha) * super().loss(logits, batch) + self.alpha * distance


class Multitask(Objective):
    """A class per image in each of several tasks.

    The loss is the weighted mean of the tasks' losses. Metrics are logged per task as `val/<task>/...`, and their means
    as `val/...`. Labels have shape (N, tasks).

    Args:
        outputs: The tasks.
        task_weights: Weight of each task's loss, by name, > 0; 1 for tasks that are not named.
        gamma: Of the focal loss; 0 is the cross entropy.
        label_smoothing: Share of each target spread over its task's classes, in [0, 1).
        weights: Class weights per task, as for `Classify`; None for equal weights.
    """

    weight_of_task: Tensor

    def __init__(
        self,
        outputs: Outputs,
        *,
        task_weights: Mapping[str, float] | None = None,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        weights: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__(outputs)
        given = task_weights or {}
        shares = [given.get(task.name, 1.0) for task in outputs.tasks]
        self.task_weights = tuple(share / sum(shares) for share in shares)
        self.register_buffer("weight_of_task", torch.tensor(self.task_weights), persistent=False)
        self.parts = nn.ModuleList(
            Classify(
                Outputs((task,)),
                gamma=gamma,
                label_smoothing=label_smoothing,
                weights=None if weights is None else weights[index],
            )
            for index, task in enumerate(outputs.tasks)
        )

    def loss(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the weighted mean of the tasks' losses."""
        targets = self.outputs.split(batch.targets) if batch.targets is not None else [None] * len(self.parts)
        losses = [
            part.loss(own, batch._replace(labels=labels, targets=mixture)) * weight
            for (part, own, labels), mixture, weight in zip(
                self._by_task(logits, batch.labels), targets, self.task_weights, strict=True
            )
        ]
        return torch.stack(losses).sum()

    def mixed_targets(self, labels: Tensor, shares: Tensor) -> Tensor:
        """Return shares of the classes of each task."""
        each = zip(self._classifiers, labels.unbind(dim=1), strict=True)
        return torch.cat([part.mixed_targets(own, shares) for part, own in each], dim=1)

    def dominant_labels(self, targets: Tensor) -> Tensor:
        """Return classes, int64, shape (N, tasks)."""
        return torch.stack([own.argmax(dim=1) for own in self.outputs.split(targets)], dim=1)

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return shape (N, tasks)."""
        return torch.cat([part.right(own, of) for part, own, of in self._by_task(logits, labels)], dim=1)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted means of cross entropies."""
        losses = [part.losses(own, of) for part, own, of in self._by_task(logits, labels)]
        return torch.stack(losses, dim=1) @ self.weight_of_task

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Update the metrics of each task."""
        for part, own, of in self._by_task(logits, labels):
            part.update(own, of)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of each task, and their means."""
        by_task = [part.compute() for part in self._classifiers]
        means = {key: torch.stack([figures[key] for figures in by_task]).mean() for key in by_task[0]}
        own = {
            key.replace("val/", f"val/{task.name}/", 1): value
            for task, figures in zip(self.outputs.tasks, by_task, strict=True)
            for key, value in figures.items()
        }
        return {**means, **own}

    @property
    def _classifiers(self) -> list[Classify]:
        return cast("list[Classify]", list(self.parts))

    def _by_task(self, logits: Tensor, labels: Tensor) -> list[tuple[Classify, Tensor, Tensor]]:
        return list(zip(self._classifiers, self.outputs.split(logits), labels.unbind(dim=1), strict=True))


class Multilabel(Objective):
    """Labels of which an image may have several, or none. Labels have shape (N, L) and are 0 or 1.

    Args:
        outputs: The labels.
        gamma: Of the focal loss; 0 is the binary cross entropy.
        label_smoothing: Share of the target that lies half-way between yes and no, in [0, 1).
        weights: Weight of positive targets, as `training.losses.positive_weights` returns them; None for 1.

    Attributes:
        thresholds: Probability from which a label is predicted, shape (L,), with the best F1 in the last validation.
            Validation metrics use 0.5.
    """

    thresholds: Tensor

    def __init__(
        self,
        outputs: Outputs,
        *,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__(outputs)
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("thresholds", torch.full((len(outputs),), DEFAULT_THRESHOLD))
        self.metrics = label_metrics(len(outputs))

    def loss(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Tensor:
        """Return the mean over images and labels."""
        targets = batch.labels if batch.targets is None else batch.targets
        return multilabel_loss(
            logits,
            targets,
            gamma=self.gamma,
            positive_weights=self.weights,
            label_smoothing=self.label_smoothing,
        )

    def mixed_targets(self, labels: Tensor, shares: Tensor) -> Tensor:
        """Return the share of each label in each mixed image."""
        return mix_targets(labels.float(), shares)

    def dominant_labels(self, targets: Tensor) -> Tensor:
        """Return the labels that more than half of an image has, int64, shape (N, L)."""
        return (targets > 0.5).long()

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return shape (N, L), at a probability of 0.5."""
        return (logits > 0) == (labels > 0)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return means of binary cross entropies over the labels."""
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Store all logits: average precision and thresholds need them."""
        self.metrics.update(logits.sigmoid(), labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the figures at 0.5, and those that need no threshold; choose thresholds."""
        ranked = self.metrics["ap_macro"]
        assert isinstance(ranked, MultilabelAveragePrecision)
        with ranked.sync_context():  # all ranks' answers, where there are several
            scores, labels = (joined(values).cpu().numpy() for values in (ranked.preds, ranked.target))
        self.thresholds.copy_(torch.tensor(best_thresholds(scores, labels)))
        return compute_and_reset(self.metrics)
