"""Networks without memory."""

import copy

import torch
from torch import Tensor, nn


def on_meta(network: nn.Module) -> nn.Module:
    """Return a copy on the meta device: names and shapes; parameters that are shared stay so."""
    memo: dict[int, Tensor] = {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
        )
    return copy.deepcopy(network, memo)
