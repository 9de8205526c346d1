"""Loss and accuracy over the training images of an epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unfreeze.training.step_savings import PendingBatches

NEVER = 2**62
"""The number of the first batch whose loss is not finite, where all are finite."""

_FIRST_NOT_FINITE = "first_not_finite"


class TrainMeans(Metric):
    """Means of the training loss and accuracy, summed on the device and read only when they are computed.

    The sums are saved in checkpoints, so that a resume in mid-epoch reports the whole epoch.

    Args:
        right: Returns which predictions are right, bool, shape (N, predictions per image), from logits and labels.
    """

    full_state_update = False
    loss_sum: Tensor
    hits: Tensor
    answers: Tensor
    images: Tensor
    batches: Tensor
    first_not_finite: Tensor

    def __init__(self, right: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._right = right
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        for name in ("hits", "answers", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum", persistent=True)
        self.add_state("batches", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max", persistent=True)
        never = torch.full((), NEVER, dtype=torch.int64)
        self.add_state("first_not_finite", never, dist_reduce_fx="min", persistent=True)
        self._pending = PendingBatches()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean over its images, a scalar in nats.
            logits: Shape (N, C).
            labels: int64, shape (N,), or (N, T).
        """
        if self._pending.add(loss, logits, labels):
            self._update_pending()

    def means(self) -> dict[str, Tensor]:
        """Return `loss` in nats per image and `acc` in [0, 1], scalars, over all ranks; empty before a batch."""
        self._update_pending()
        return {key: self.compute()[key] for key in ("loss", "acc")} if self.update_called else {}

    def find_not_finite(self) -> int | None:
        """Return the number of the epoch's first batch with a loss that is not finite on any rank, counted from 1."""
        self._update_pending()
        first = int(self.compute()[_FIRST_NOT_FINITE]) if self.update_called else NEVER
        return None if first == NEVER else first

    def update(self, losses: Sequence[Tensor], logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Update the sums with several batches.

        Args:
            losses: Means over the images of each batch, scalars in nats.
            logits: Of each batch, shape (N, C).
            labels: Of each batch, int64, shape (N,), or (N, T).
        """
        for loss, each in zip(losses, labels, strict=True):  # one by one: sums must not depend on how they are batched
            self.loss_sum.add_(loss, alpha=len(each))
        numbers = self.batches + torch.arange(1, len(losses) + 1, device=self.batches.device)
        bad = torch.where(torch.stack(list(losses)).isfinite(), NEVER, numbers)
        self.first_not_finite.copy_(torch.minimum(self.first_not_finite, bad.min()))
        self.batches.add_(len(losses))
        right = self._right(torch.cat(list(logits)), torch.cat(list(labels)))
        self.hits.add_(right.sum())
        self.answers.add_(right.numel())
        self.images.add_(len(right))

    def compute(self) -> dict[str, Tensor]:
        """Return the means, and the number of the first batch whose loss is not finite."""
        means = {"loss": self.loss_sum / self.images, "acc": self.hits / self.answers}
        return {**means, _FIRST_NOT_FINITE: self.first_not_finite.clone()}

    def reset(self) -> None:
        """Reset the sums."""
        self._pending.take()
        super().reset()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the sums over all batches."""
        self._update_pending()
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state

    def _update_pending(self) -> None:
        pending = self._pending.take()
        if pending is not None:
            self.update(*pending)
