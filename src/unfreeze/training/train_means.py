"""Loss and accuracy over the images that an epoch trains on."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

NEVER = 2**62
"""The step of the first loss that is not finite, where all are finite."""

_NOTED_BATCHES = 64
_NOTED_VALUES = 1 << 18
_FIRST_NOT_FINITE = "first_not_finite"


class TrainMeans(Metric):
    """Sums on the device, read when they are asked for.

    Batches are noted and added many at a time, since an update costs a small step dearly. The sums are in the
    checkpoint, so that a resume in mid-epoch reports the whole epoch.

    Args:
        right: Returns which answers are right, bool, shape (N, answers per image), from logits and labels.
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
        self._noted: list[tuple[Tensor, Tensor, Tensor]] = []
        self._noted_values = 0

    def note(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take a batch, to be added when its turn comes.

        Args:
            loss: Mean over its images, a scalar in nats.
            logits: Shape (N, C).
            labels: int64, shape (N,), or (N, T).
        """
        self._noted.append((loss.detach(), logits.detach(), labels))
        self._noted_values += logits.numel()
        if len(self._noted) >= _NOTED_BATCHES or self._noted_values >= _NOTED_VALUES:
            self._add_noted()

    def means(self) -> dict[str, Tensor]:
        """Return `loss` in nats per image and `acc` in [0, 1], scalars, over all ranks; nothing before a batch."""
        self._add_noted()
        return {key: self.compute()[key] for key in ("loss", "acc")} if self.update_called else {}

    def find_not_finite(self) -> int | None:
        """Return the number of the epoch's first batch with a loss that is not finite on any rank, counted from 1."""
        self._add_noted()
        first = int(self.compute()[_FIRST_NOT_FINITE]) if self.update_called else NEVER
        return None if first == NEVER else first

    def update(self, losses: Sequence[Tensor], logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Add batches.

        Args:
            losses: Means over the images of each batch, scalars in nats.
            logits: Of each, shape (N, C).
            labels: Of each, int64, shape (N,), or (N, T).
        """
        for loss, each in zip(losses, labels, strict=True):  # one by one: sums must not depend on what was noted when
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
        """Return the means of what was added, and the number of the first batch whose loss is not finite."""
        means = {"loss": self.loss_sum / self.images, "acc": self.hits / self.answers}
        return {**means, _FIRST_NOT_FINITE: self.first_not_finite.clone()}

    def reset(self) -> None:
        """Begin again."""
        self._noted, self._noted_values = [], 0
        super().reset()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the sums, with all that was noted."""
        self._add_noted()
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state

    def _add_noted(self) -> None:
        if not self._noted:
            return
        noted = zip(*self._noted, strict=True)
        self._noted, self._noted_values = [], 0
        self.update(*noted)
