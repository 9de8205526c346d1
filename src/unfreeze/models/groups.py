"""Layer groups: the ordered parts of a backbone that freeze and thaw together.

Groups are counted from the head. They are disjoint and cover every parameter and buffer, which
`build_layer_groups` checks by identity.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision import models as tv

from unfreeze.models.meta import on_meta

Part = tuple[str, list[str]]
"""A group's name and the qualified names of the modules or parameters in it."""

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
"""Layers that normalise by the images of a batch, and by what they have counted in evaluation."""

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)

_AREAS: dict[tuple[type[nn.Module], str, str], dict[str, int]] = {}
"""What `_feature_map_areas` has found, by a network's type, the container and the network in words."""


@dataclass(frozen=True)
class LayerGroup:
    """One layer group of one network.

    Args:
        name: Its name, unique within the network.
        parameters: Qualified names of its parameters.
        modules: Qualified names of its modules; a module that spans several groups is in none.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


def choose_parameters(
    network: nn.Module, groups: Sequence[LayerGroup], live: Collection[str], only: Collection[str] | None = None
) -> frozenset[str]:
    """Return the qualified names of the parameters that train.

    Args:
        network: A classifier.
        groups: Its layer groups, from the head down.
        live: Names of those that train.
        only: What trains of those below the head: "norms", "biases", or fullmatch patterns of qualified names; None for
            everything. The head is new, and trains as a whole.
    """
    chosen: set[str] = set()
    for index, group in enumerate(groups):
        if group.name in live:
            whole = only is None or index == 0
            chosen |= {key for key in group.parameters if whole or _is_one_of(network, key, only or ())}
    return frozenset(chosen)


def count_chosen(
    network: nn.Module, groups: Sequence[LayerGroup], live: Collection[str], only: Collection[str] | None
) -> int:
    """Return how many numbers the parameters have that `choose_parameters` chooses; 0 if `only` chooses none."""
    chosen = choose_parameters(network, groups, live, only)
    if chosen <= set(groups[0].parameters) and only is not None:
        return 0
    return sum(network.get_parameter(key).numel() for key in chosen)


def _is_one_of(network: nn.Module, key: str, only: Collection[str]) -> bool:
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
        network: A classifier; it may be on the meta device.
        heads: Qualified names of the modules that give the logits.
        parts: Of the backbone, from the input to just before the heads; None for those that `backbone_parts` finds.

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
            # A dropout that stands outside every part regularises what comes after it.
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


def backbone_parts(network: nn.Module, head: str) -> list[Part]:
    """Return the parts of a backbone from the input to just before the head."""
    parts = _family_parts(network)
    if parts is None:
        parts = _children_parts(network, head)
    return _rest_of_classifier(network, parts, head)


def maximal_modules(network: nn.Module, parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return for lists of parameters the largest modules that hold those of one list alone, and what is left over.

    Args:
        network: Whose they are.
        parts: Qualified names of parameters, no name twice.
    """
    number_of = {key: number for number, part in enumerate(parts) for key in part}
    found: list[list[str]] = [[] for _ in parts]
    taken: tuple[str, ...] = ()
    for name, module in network.named_modules():
        inside = {number_of.get(f"{name}.{key}") for key, _ in module.named_parameters()} if name else {None}
        number = inside.pop() if len(inside) == 1 else None
        if number is not None and not f"{name}.".startswith(taken):
            found[number].append(name)
            taken = (*taken, f"{name}.")
    for key, number in number_of.items():
        if not key.startswith(taken):
            found[number].append(key)
    return found


def _rest_of_classifier(network: nn.Module, parts: list[Part], head: str) -> list[Part]:
    """Give what stands in the classifier before the head a group of its own, or to the last part if it is a norm."""
    covered = {prefix for _, members in parts for prefix in members}
    top = head.split(".")[0]
    if top in covered or top == head:
        return parts
    classifier = network.get_submodule(top)
    hidden = [
        f"{top}.{key}"
        for key, child in classifier.named_children()
        if f"{top}.{key}" != head and any(True for _ in child.parameters())
    ]
    if not hidden:
        return parts
    if parts and all(isinstance(network.get_submodule(key), NORMS) for key in hidden):
        name, members = parts[-1]
        return [*parts[:-1], (name, [*members, *hidden])]
    return [*parts, ("neck" if top == "head" else top, hidden)]


def _family_parts(network: nn.Module) -> list[Part] | None:
    match network:
        case tv.ResNet():
            blocks = ["layer1", "layer2", "layer3", "layer4"]
            return [("stem", ["conv1", "bn1"]), *((name, [name]) for name in blocks)]
        case tv.RegNet():
            names = [f"trunk_output.{name}" for name, _ in network.trunk_output.named_children()]
            return [("stem", ["stem"]), *((name.rpartition(".")[2], [name]) for name in names)]
        case tv.ShuffleNetV2():
            return [
                ("stem", ["conv1"]),
                ("stage2", ["stage2"]),
                ("stage3", ["stage3"]),
                ("stage4", ["stage4", "conv5"]),
            ]
        case tv.DenseNet():
            dense = [(f"denseblock{i}", [f"features.denseblock{i}", f"features.transition{i}"]) for i in (1, 2, 3)]
            return [
                ("stem", ["features.conv0", "features.norm0"]),
                *dense,
                ("denseblock4", ["features.denseblock4", "features.norm5"]),
            ]
        case tv.VisionTransformer():
            return _transformer_parts(network)
        case tv.MaxVit():
            names = [f"blocks.{name}" for name, _ in network.blocks.named_children()]
            return [("stem", ["stem"]), *((f"block{i}", [name]) for i, name in enumerate(names, start=1))]
        case tv.SwinTransformer():
            return _with_tail(_resolution_parts(network, "features"), ["norm"])
        case tv.Inception3() | tv.GoogLeNet():
            return _without_classifier(_resolution_parts(network, ""))
        case tv.MNASNet():
            return _resolution_parts(network, "layers")
        case (
            tv.VGG()
            | tv.AlexNet()
            | tv.SqueezeNet()
            | tv.MobileNetV2()
            | tv.MobileNetV3()
            | tv.EfficientNet()
            | tv.ConvNeXt()
        ):
            return _resolution_parts(network, "features")
    return None


def _without_classifier(parts: list[Part]) -> list[Part]:
    """Leave the dropout before the head to the head, which it regularises."""
    kept = [(name, [member for member in members if member not in ("dropout", "fc")]) for name, members in parts]
    return [part for part in kept if part[1]]


def _with_tail(parts: list[Part], tail: list[str]) -> list[Part]:
    name, members = parts[-1]
    return [*parts[:-1], (name, [*members, *tail])]


def _transformer_parts(network: tv.VisionTransformer) -> list[Part]:
    """Cut a vision transformer into its embedding and the quarters of its blocks."""
    blocks = [f"encoder.layers.{name}" for name, _ in network.encoder.layers.named_children()]
    size = -(-len(blocks) // 4)
    quarters = [blocks[start : start + size] for start in range(0, len(blocks), size)]
    embedding = ["conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout"]
    parts = [("embedding", embedding), *((f"blocks{i}", quarter) for i, quarter in enumerate(quarters, start=1))]
    return _with_tail(parts, ["encoder.ln"])


def _resolution_parts(network: nn.Module, container: str) -> list[Part]:
    """Cut a sequential container where the area of its feature maps shrinks; the first part is the stem."""
    cuts: list[list[str]] = []
    previous: int | None = None
    for name, area in _feature_map_areas(network, container).items():
        if previous is None or area < previous:
            cuts.append([])
        cuts[-1].append(f"{container}.{name}".lstrip("."))
        previous = area
    with_parameters: list[list[str]] = []
    pending: list[str] = []
    for cut in cuts:
        pending += cut
        if any(True for key in cut for _ in network.get_submodule(key).parameters()):
            with_parameters.append(pending)
            pending = []
    if pending and with_parameters:
        with_parameters[-1] += pending
    return [("stem" if i == 0 else f"stage{i}", cut) for i, cut in enumerate(with_parameters)]


def _feature_map_areas(network: nn.Module, container: str) -> dict[str, int]:
    """Return the number of positions that each child of a container puts out for an image of 224 px, in order.

    Networks that are made of the same modules are looked at once in a process: a pass on the meta device takes as long
    as a hundred steps of a head.
    """
    key = type(network), container, str(network)
    if key in _AREAS:
        return _AREAS[key]
    skeleton = on_meta(network).eval()
    areas: dict[str, int] = {}

    def record(name: str, output: Tensor) -> None:
        if output.ndim != 4:
            return
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        areas[name] = int(output.shape[1] ** 2 if channels_last else output.shape[-1] * output.shape[-2])

    handles = [
        child.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
        for name, child in skeleton.get_submodule(container).named_children()
    ]
    with torch.no_grad():
        skeleton(torch.empty(1, 3, 224, 224, device="meta"))
    for handle in handles:
        handle.remove()
    _AREAS[key] = areas
    return areas


def _children_parts(network: nn.Module, head: str) -> list[Part]:
    """Fall back to the top-level children that hold parameters, in the order of their definition, up to the head."""
    children = [
        name
        for name, child in network.named_children()
        if name != head.split(".")[0] and any(True for _ in child.parameters())
    ]
    loose = [key for key, _ in network.named_parameters(recurse=False)]
    parts: list[Part] = [("stem", loose)] if loose else []
    for name in children:
        # The last group is called head whatever the children are.
        title = "neck" if name == "head" else name
        while title in {"head", *(taken for taken, _ in parts)}:
            title += "_"
        parts.append((title, [name]))
    return parts
