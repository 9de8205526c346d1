"""First convolution of a network for images with other than three channels."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unfreeze.errors import UnfreezeError

PRETRAINED = 3
"""Number of input channels of published weights."""


def find_first_convolution(network: nn.Module) -> str:
    """Return the qualified name of the input convolution: the first one with three input channels.

    Raises:
        UnfreezeError: If there is none.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == PRETRAINED and module.groups == 1:
            return str(name)
    raise UnfreezeError("model.in_chans: the network has no convolution that takes three channels; leave it at 3")


def replace_first_convolution(network: nn.Module, in_chans: int) -> str | None:
    """Replace the first convolution by one for another number of channels, with the weights of `adapt_weight`.

    Args:
        network: Network, changed in place.
        in_chans: Number of input channels, >= 1.

    Returns:
        Qualified name of the replaced convolution; None if it needed no replacement.

    Raises:
        UnfreezeError: If there is no convolution with three input channels.
    """
    if in_chans == PRETRAINED:
        return None
    name = find_first_convolution(network)
    parent_name, _, child_name = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    old = parent.get_submodule(child_name)
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight.copy_(adapt_weight(old.weight, in_chans))
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    setattr(parent, child_name, new)
    return name


def adapt_weight(weight: Tensor, in_chans: int) -> Tensor:
    """Return the weights of a first convolution for another number of channels, with the same output for grey images.

    One or two channels get the sum over red, green and blue in equal shares; more channels get those of red, green
    and blue in turn, scaled to the same sum.

    Args:
        weight: Weights, shape (out, 3, height, width).
        in_chans: Number of input channels, >= 1.

    Returns:
        Weights, shape (out, in_chans, height, width).
    """
    turns = torch.arange(in_chans, device=weight.device) % PRETRAINED
    if in_chans < PRETRAINED:
        each = weight.sum(dim=1, keepdim=True) / in_chans
        return each.expand(-1, in_chans, -1, -1).contiguous()
    counts = torch.bincount(turns, minlength=PRETRAINED).to(weight.dtype)
    return weight[:, turns] / counts[turns].view(1, -1, 1, 1)


def adapt_state(state: Mapping[str, Tensor], convolution: str | None, in_chans: int) -> Mapping[str, Tensor]:
    """Return a state_dict with the first convolution adapted to another number of channels, if it has three.

    Args:
        state: State dict of a network for three channels, or for the wanted number.
        convolution: Qualified name of the first convolution; None to change nothing.
        in_chans: Number of input channels, >= 1.
    """
    key = f"{convolution}.weight"
    if convolution is None or key not in state or state[key].shape[1] != PRETRAINED:
        return state
    return {**state, key: adapt_weight(state[key], in_chans)}
