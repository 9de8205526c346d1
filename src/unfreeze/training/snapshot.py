"""Copies of the trainable part of a model, for going back to the best weights of a stage."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unfreeze.models.state_dicts import load_state

Snapshot = dict[str, Any]
"""`weights` by their names in the network, and the optimizer's `moments` by the names of their parameters."""


def take_snapshot(network: nn.Module, optimizer: Optimizer) -> Snapshot:
    """Return copies on the CPU of the trainable weights, all buffers, and the moments; frozen weights do not change."""
    live = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    frozen = {key for key, _ in network.named_parameters()} - live
    moments = {
        key: {name: _to_cpu(value) for name, value in optimizer.state.get(network.get_parameter(key), {}).items()}
        for key in sorted(live)
    }
    weights = {key: _to_cpu(value) for key, value in network.state_dict().items() if key not in frozen}
    return {"weights": weights, "moments": moments}


def restore_snapshot(network: nn.Module, optimizer: Optimizer, snapshot: Snapshot) -> None:
    """Load the weights and the moments of a snapshot, in place."""
    load_state(network, snapshot["weights"], strict=False)
    for key, moments in snapshot["moments"].items():
        state = optimizer.state.get(network.get_parameter(key), {})
        for name, value in moments.items():
            current = state.get(name)
            state[name] = value.to(current.device, copy=True) if isinstance(current, Tensor) else value


def _to_cpu(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
