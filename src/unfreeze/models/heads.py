"""Heads: the layers that output the logits, and their replacement."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfreeze.errors import UnfreezeError
from unfreeze.models.spec import HeadSpec

_SCALE = 10.0
"""Initial factor of the cosines, without which their softmax would be nearly uniform."""


class Headed(Protocol):
    """A network with the names of its heads."""

    @property
    def network(self) -> nn.Module:
        """Network with the heads."""
        ...

    @property
    def heads(self) -> tuple[str, ...]:
        """Qualified names of the heads."""
        ...


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it, with the state_dict of the linear layer alone."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, dropout: float) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, shape (..., out_features)."""
        return super().forward(self.dropout(features))


class MLPHead(nn.Sequential):
    """A hidden layer with GELU, dropout, and a linear layer."""

    def __init__(self, in_features: int, out_features: int, *, hidden: int | None, dropout: float) -> None:
        width = hidden or in_features
        super().__init__(nn.Linear(in_features, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, out_features))


class CosineHead(nn.Module):
    """Scaled cosines between the features and a learned direction per class (Gidaris and Komodakis 2018).

    The logits do not depend on the norm of the features, which helps with few images per class. The scale is learned.
    """

    def __init__(self, in_features: int, out_features: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(out_features, in_features), a=5**0.5))
        self.scale = nn.Parameter(torch.tensor(_SCALE))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits in [-scale, scale], shape (..., out_features)."""
        directions = F.normalize(self.weight, dim=-1)
        return self.scale * F.linear(F.normalize(self.dropout(features), dim=-1), directions)


class TaskHeads(nn.ModuleList):
    """A head per task on the same features, with concatenated logits."""

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, shape (..., classes of all tasks); of convolutions, shape (N, classes of all tasks, H, W)."""
        logits = [head(features) for head in self]
        return torch.cat(logits, dim=1 if isinstance(self[0], nn.Conv2d) else -1)


@contextmanager
def head_inputs(classifier: "Headed") -> Iterator[list[Tensor]]:
    """Record the inputs of a classifier's head in a context, as a tensor of shape (N, D) per forward pass."""
    recorded: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0]
        recorded.append(features.mean(dim=(2, 3)) if features.ndim == 4 else features.flatten(1))

    hook = classifier.network.get_submodule(classifier.heads[0]).register_forward_pre_hook(record)
    try:
        yield recorded
    finally:
        hook.remove()


def find_head(network: nn.Module) -> str:
    """Return the qualified name of the last linear layer, or of the last convolution if there is none.

    Raises:
        UnfreezeError: If the network has neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return str(names[-1])
    raise UnfreezeError("model.name: the network has no linear or convolutional layer that could be a head")


def replace_head(network: nn.Module, name: str, *, num_classes: int, head: HeadSpec | None = None) -> None:
    """Replace the head of a classifier.

    Args:
        network: Classifier, changed in place.
        name: Qualified name of the old head, as of `find_head`.
        num_classes: Number of logits of the new head, >= 1.
        head: Specification of the new head; None for a linear head with the dropout of the architecture.

    Raises:
        UnfreezeError: If the architecture does not support the head.
    """
    head = head or HeadSpec()
    parent_name, _, child_name = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    old = parent.get_submodule(child_name)
    dropout = head.dropout
    existing = _dropout_before(parent, child_name) if dropout is not None else None
    if existing is not None and dropout is not None:
        existing.p = dropout
        dropout = None
    setattr(parent, child_name, _new_layer(old, num_classes, head, dropout or 0.0))
    if hasattr(network, "num_classes"):
        network.num_classes = num_classes  # type: ignore[assignment]


def _dropout_before(parent: nn.Module, child_name: str) -> nn.Dropout | None:
    names = list(parent._modules)
    previous = [parent._modules[name] for name in names[: names.index(child_name)]]
    if isinstance(parent, nn.Sequential) and previous and isinstance(previous[-1], nn.Dropout):
        return previous[-1]
    return None


def _new_layer(old: nn.Module, num_classes: int, head: HeadSpec, dropout: float) -> nn.Module:
    if head.tasks:
        single = replace(head, tasks=())
        return TaskHeads(_new_layer(old, classes, single, dropout) for classes in head.tasks)
    if isinstance(old, nn.Conv2d):
        if head.name != "linear" or dropout:
            typed = f"head={head.name}" if head.name != "linear" else f"head.dropout={dropout}"
            raise UnfreezeError(
                f"{typed}: the head of this architecture is a convolution without dropout; leave it out"
            )
        return nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
    if not isinstance(old, nn.Linear):
        raise TypeError(f"a head of type {type(old).__name__} can't be replaced")
    bias = old.bias is not None
    match head.name:
        case "mlp":
            return MLPHead(old.in_features, num_classes, hidden=head.hidden, dropout=dropout)
        case "cosine":
            return CosineHead(old.in_features, num_classes, dropout=dropout)
        case _ if dropout:
            return DropoutLinear(old.in_features, num_classes, bias=bias, dropout=dropout)
    return nn.Linear(old.in_features, num_classes, bias=bias)
