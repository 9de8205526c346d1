"""Savings in the fixed cost of a training step, of which a head on stored features consists almost alone.

Of 1.1 ms for a step of a linear head at batch size 128 (`benchmarks/step_savings.py`), they save: `PlainHookName`
0.08 ms, `Unprofiled` 0.10 ms, `only_live_groups` 0.04 ms, `PendingBatches` 0.18 ms.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor
from torch.optim import Optimizer

_NOTHING = nullcontext("")
_MOST_BATCHES = 64
_MOST_VALUES = 1 << 18


class PlainHookName:
    """Sets the name of the running hook as a plain attribute: nn.Module checks each of the 20 that a step sets."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class Unprofiled(PassThroughProfiler):
    """Replaces Lightning's empty profiler, which makes a generator for each of the 100 hooks of a step."""

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]
        """Return a context that does nothing."""
        return _NOTHING


@contextmanager
def only_live_groups(optimizer: Optimizer) -> Iterator[None]:
    """Hide frozen parameter groups from an optimizer, whose step would visit each of their parameters."""
    everything = optimizer.param_groups
    optimizer.param_groups = [group for group in everything if any(each.requires_grad for each in group["params"])]
    try:
        yield
    finally:
        optimizer.param_groups = everything


class PendingBatches:
    """Collects batches for a metric that is updated with many at a time: an update takes a dozen small operations."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._values = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> bool:
        """Add a batch, and return whether it is time for an update."""
        self._batches.append((loss.detach(), logits.detach(), labels))
        self._values += logits.numel()
        return len(self._batches) >= _MOST_BATCHES or self._values >= _MOST_VALUES

    def take(self) -> tuple[Sequence[Tensor], ...] | None:
        """Return the losses, the logits and the labels of the batches so far, and start anew; None without any."""
        batches, self._batches, self._values = self._batches, [], 0
        return tuple(zip(*batches, strict=True)) if batches else None
