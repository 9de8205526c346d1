"""Finding the layer that gives the logits, and putting a new one in its place."""

from torch import Tensor, nn


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it whose state_dict is that of the linear layer alone."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, dropout: float) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, shape (..., out_features)."""
        return super().forward(self.dropout(features))


def find_head(network: nn.Module) -> str:
    """Return the qualified name of the last linear layer, or of the last convolution where there is none.

    Raises:
        ValueError: If the network has neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return str(names[-1])
    raise ValueError("no linear or convolutional layer that could be a head")


def replace_head(network: nn.Module, head: str, *, num_classes: int, dropout: float | None) -> None:
    """Put a new head for some classes in the place of the old one.

    Args:
        network: The classifier, changed in place.
        head: Qualified name of the old head, as `find_head` gives it.
        num_classes: Logits of the new head, >= 1.
        dropout: Probability before the head; None leaves what the architecture has.
    """
    parent_name, _, child_name = head.rpartition(".")
    parent = network.get_submodule(parent_name)
    old = parent.get_submodule(child_name)
    existing = _dropout_before(parent, child_name) if dropout is not None else None
    if existing is not None and dropout is not None:
        existing.p = dropout
        dropout = None
    setattr(parent, child_name, _new_layer(old, num_classes, dropout))
    if hasattr(network, "num_classes"):
        network.num_classes = num_classes  # type: ignore[assignment]


def _dropout_before(parent: nn.Module, child_name: str) -> nn.Dropout | None:
    names = list(parent._modules)
    previous = [parent._modules[name] for name in names[: names.index(child_name)]]
    if isinstance(parent, nn.Sequential) and previous and isinstance(previous[-1], nn.Dropout):
        return previous[-1]
    return None


def _new_layer(old: nn.Module, num_classes: int, dropout: float | None) -> nn.Module:
    if isinstance(old, nn.Conv2d):
        if dropout:
            raise ValueError("dropout before a convolutional head that has none of its own")
        return nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
    if not isinstance(old, nn.Linear):
        raise TypeError(f"a head of type {type(old).__name__} can't be replaced")
    bias = old.bias is not None
    if dropout:
        return DropoutLinear(old.in_features, num_classes, bias=bias, dropout=dropout)
    return nn.Linear(old.in_features, num_classes, bias=bias)
