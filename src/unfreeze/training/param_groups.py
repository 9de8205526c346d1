"""Optimizer parameter groups: one per layer group and decay rule, all from the start, never changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from unfreeze.models.classifier import Classifier

OptimizerName = Literal["adamw", "adam", "sgd"]

_FUSED = ("cpu", "cuda", "mps")
"""Kinds of devices for which PyTorch has optimizers whose step is one kernel."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer before it has parameters.

    Args:
        name: "adamw", "adam" or "sgd".
        weight_decay: Of weight matrices and kernels; norms, biases and embeddings of position have none.
        momentum: Of SGD, or the first beta of the Adam family, in [0, 1).
    """

    name: OptimizerName = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9


def build_param_groups(classifier: Classifier, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return optimizer groups that hold every parameter of a classifier once.

    Each has `name`, `layer_group`, `weight_decay`, and `lr` 0 until a stage sets it.
    """
    exempt = _names_without_decay(classifier.network)
    groups = []
    for group in classifier.groups:
        for suffix, decay in (("", weight_decay), (".no_decay", 0.0)):
            parameters = [
                classifier.network.get_parameter(key) for key in group.parameters if (key in exempt) == bool(suffix)
            ]
            if parameters:
                name = f"{group.name}{suffix}"
                groups.append(
                    {"params": parameters, "name": name, "layer_group": group.name, "weight_decay": decay, "lr": 0.0}
                )
    return groups


def build_optimizer(spec: OptimizerSpec, groups: list[dict[str, Any]], *, fused: bool = True) -> Optimizer:
    """Return an optimizer over groups that `build_param_groups` made.

    Args:
        spec: The optimizer and its constants.
        groups: All of them, frozen ones too.
        fused: Use PyTorch's fused kernel where the device has one; else PyTorch's default.
    """
    kernel = True if fused and groups[0]["params"][0].device.type in _FUSED else None
    match spec.name:
        case "adamw":
            return AdamW(groups, lr=0.0, betas=(spec.momentum, 0.999), fused=kernel)
        case "adam":
            return Adam(groups, lr=0.0, betas=(spec.momentum, 0.999), fused=kernel)
        case "sgd":
            return SGD(groups, lr=0.0, momentum=spec.momentum, fused=kernel)


def drop_frozen_state(optimizer: Optimizer) -> None:
    """Remove the moments of frozen parameters."""
    for parameter in _parameters(optimizer):
        if not parameter.requires_grad:
            optimizer.state.pop(parameter, None)


def _parameters(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _names_without_decay(network: nn.Module) -> set[str]:
    listed = getattr(network, "no_weight_decay", None)
    exempt = set(listed()) if callable(listed) else set()
    one_dimensional = {key for key, parameter in network.named_parameters() if parameter.ndim <= 1}
    embeddings = {
        key
        for key, _ in network.named_parameters()
        if key.rpartition(".")[2] in ("class_token", "pos_embedding", "relative_position_bias_table")
    }
    return exempt | one_dimensional | embeddings
