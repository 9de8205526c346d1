"""Loss and accuracy over the images that an epoch trains on."""

import torch
from torch import Tensor
from torchmetrics import Metric


class TrainMeans(Metric):
    """Sums on the device, read when they are asked for: one metric, since an update costs a small step dearly.

    They are in the checkpoint, so that a resume in mid-epoch reports the whole epoch.
    """

    full_state_update = False
    loss_sum: Tensor
    hits: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, kind in (("loss_sum", torch.float32), ("hits", torch.int64), ("images", torch.int64)):
            self.add_state(name, torch.zeros((), dtype=kind), dist_reduce_fx="sum", persistent=True)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean over its images, a scalar in nats.
            logits: Shape (N, C).
            labels: int64, shape (N,).
        """
        self.loss_sum.add_(loss, alpha=len(labels))
        self.hits.add_((logits.argmax(dim=1) == labels).sum())
        self.images.add_(len(labels))

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` in nats per image and `acc` in [0, 1], scalars, over all ranks."""
        return {"loss": self.loss_sum / self.images, "acc": self.hits / self.images}
