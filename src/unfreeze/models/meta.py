"""Networks on the meta device, which take no memory."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def move_to_meta(network: nn.Module) -> nn.Module:
    """Move a network to the meta device in place; shared parameters stay shared."""
    moved = _moved(network)
    for module in network.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for tensors in tables:
            for key, tensor in tensors.items():
                if tensor is not None:
                    tensors[key] = moved[id(tensor)]
    return network


def on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the meta device.

    Raises:
        RuntimeError: If the network can't be copied, for example because it stores computed tensors.
    """
    return copy.deepcopy(network, _moved(network))


def _moved(network: nn.Module) -> dict[int, Tensor]:
    """Return the parameters and buffers of a network on the meta device, by identity."""
    moved: dict[int, Tensor] = {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    for parameter in network.parameters():
        empty = torch.empty_like(parameter, device="meta")
        moved[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    return moved
