"""Layer groups: the ordered parts of a network that are frozen and unfrozen together.

Groups are counted from the head. They are disjoint and cover every parameter and buffer, which
`build_layer_groups` checks by identity.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from unfreeze.models.norms import NORMS
from unfreeze.models.parts import Part, backbone_parts


@dataclass(frozen=True)
class LayerGroup:
    """A layer group of a network.

    Args:
        name: Name of the group, unique in the network.
        parameters: Qualified names of its parameters.
        modules: Qualified names of its modules; a module that spans several groups is in none.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


def choose_parameters(
    network: nn.Module, groups: Sequence[LayerGroup], live: Collection[str], only: Collection[str] | None = None
) -> frozenset[str]:
    """Return the qualified names of the trainable parameters.

    Args:
        network: Classifier.
        groups: Layer groups of the classifier, from the head down.
        live: Names of the trainable groups.
        only: Parameters to train in the groups below the head: "norms", "biases", or patterns of whole qualified
            names; None for all. The head always trains as a whole.
    """
    chosen: set[str] = set()
    for index, group in enumerate(groups):
        if group.name in live:
            is_whole = only is None or index == 0
            chosen |= {key for key in group.parameters if is_whole or _matches(network, key, only or ())}
    return frozenset(chosen)


def count_chosen(
    network: nn.Module, groups: Sequence[LayerGroup], live: Collection[str], only: Collection[str] | None
) -> int:
    """Return the total size of the parameters that `choose_parameters` returns; 0 if `only` matches none."""
    chosen = choose_parameters(network, groups, live, only)
    if chosen <= set(groups[0].parameters) and only is not None:
        return 0
    return sum(network.get_parameter(key).numel() for key in chosen)


def _matches(network: nn.Module, key: str, only: Collection[str]) -> bool:
    owner, _, name = key.rpartition(".")
    return any(
        isinstance(network.get_submodule(owner), NORMS)
        if each == "norms"
        else name == "bias" or name.endswith("_bias")
        if each == "biases"
        else re.fullmatch(each, key) is not None
        for each in only
    )


def build_layer_groups(
    network: nn.Module, heads: str | Sequence[str], parts: Sequence[Part] | None = None
) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a network, from the head down.

    Args:
        network: Classifier, possibly on the meta device.
        heads: Qualified names of the modules that output the logits.
        parts: Parts of the backbone, from the input to just before the heads; None for those of `backbone_parts`.

    Raises:
        ValueError: If a parameter or buffer is in no group, or shared between two.
    """
    heads = [heads] if isinstance(heads, str) else list(heads)
    parts = [*(backbone_parts(network, heads[0]) if parts is None else parts), ("head", heads)]
    owner = _assign(network, parts)
    groups = []
    for name, _ in reversed(parts):
        parameters = tuple(key for key, _ in network.named_parameters() if owner[key] == name)
        if parameters:
            modules = tuple(key for key, _ in network.named_modules() if owner.get(key) == name)
            groups.append(LayerGroup(name=name, parameters=parameters, modules=modules))
    _check_disjoint_and_complete(network, groups)
    return tuple(groups)


def _assign(network: nn.Module, parts: Sequence[Part]) -> dict[str, str]:
    """Map the names of modules, parameters and buffers to groups; the longest matching prefix wins."""
    prefixes = {prefix: name for name, members in parts for prefix in members}

    def find(key: str) -> str | None:
        while key:
            if key in prefixes:
                return prefixes[key]
            key = key.rpartition(".")[0]
        return None

    owner = {
        key: name
        for key in [*_tensor_names(network), *(key for key, _ in network.named_modules())]
        if (name := find(key)) is not None
    }
    following = "head"
    for key, module in reversed(list(network.named_modules())):
        if key in owner:
            following = owner[key]
        elif not any(module.children()) and not any(True for _ in module.parameters()):
            # A dropout outside all parts belongs to the part after it, which it regularises.
            owner[key] = following
    return owner


def _tensor_names(network: nn.Module) -> list[str]:
    return [key for key, _ in [*network.named_parameters(), *network.named_buffers()]]


def _check_disjoint_and_complete(network: nn.Module, groups: Sequence[LayerGroup]) -> None:
    by_name = dict(network.named_parameters())
    seen: dict[int, str] = {}
    for group in groups:
        for key in group.parameters:
            if id(by_name[key]) in seen:
                raise ValueError(f"parameter {key} of group {group.name} is also in {seen[id(by_name[key])]}")
            seen[id(by_name[key])] = group.name
    missing = [key for key, parameter in network.named_parameters() if id(parameter) not in seen]
    if missing:
        raise ValueError(f"parameters in no layer group: {', '.join(missing[:5])}")
