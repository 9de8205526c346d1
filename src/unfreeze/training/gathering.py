"""The logits of a test, gathered from all ranks."""

from torch import Tensor, nn
from torchmetrics import CatMetric

from unfreeze.system.accelerator import to_device


class TestPredictions(nn.Module):
    """Logits, labels and indices of the images of a test, over all ranks."""

    __test__ = False  # for pytest

    def __init__(self) -> None:
        super().__init__()
        self._logits = CatMetric(nan_strategy="disable")
        self._labels = CatMetric(nan_strategy="disable")
        self._indices = CatMetric(nan_strategy="disable")
        self._gathered: tuple[Tensor, ...] = ()

    def reset(self) -> None:
        """Remove the predictions of an earlier test."""
        for metric in (self._logits, self._labels, self._indices):
            metric.reset()

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add a batch.

        Args:
            logits: float32, shape (N, C).
            labels: int64, shape (N,) or (N, T).
            indices: Positions in the source, int64, shape (N,), on the host.
        """
        self._logits.update(logits)
        self._labels.update(labels)
        self._indices.update(to_device(indices, logits.device))

    def gather(self) -> None:
        """Gather the batches of all ranks on the CPU, while the ranks' devices are still set up."""
        gathered = self._logits.compute(), self._labels.compute(), self._indices.compute()
        self._gathered = tuple(values.cpu() for values in gathered)

    def ordered(self, num_logits: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, labels and indices, ordered by the indices.

        Args:
            num_logits: C.
        """
        logits, labels, indices = self._gathered
        logits, indices = logits.view(-1, num_logits), indices.long().view(-1)
        order = indices.argsort()
        return logits[order], labels.long().view(len(logits), *labels.shape[1:])[order], indices[order]
