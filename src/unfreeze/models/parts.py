"""Parts of a backbone in the order of the forward pass, which become its layer groups."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision import models as tv

from unfreeze.models.meta import on_meta
from unfreeze.models.norms import NORMS

Part = tuple[str, list[str]]
"""Name of a group, and qualified names of its modules or parameters."""

_AREAS: dict[tuple[type[nn.Module], str, str], dict[str, int]] = {}
"""Cached results of `_feature_map_areas` by the type of the network, the container, and the text of the network."""


def backbone_parts(network: nn.Module, head: str) -> list[Part]:
    """Return the parts of a backbone from the input to just before the head."""
    parts = _family_parts(network)
    if parts is None:
        parts = _children_parts(network, head)
    return _rest_of_classifier(network, parts, head)


def maximal_modules(network: nn.Module, parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the largest modules whose parameters are all in one list, and the remaining parameters, for each list.

    Args:
        network: Network of the parameters.
        parts: Lists of qualified names of parameters, without repeated names.
    """
    number_of = {key: number for number, part in enumerate(parts) for key in part}
    found: list[list[str]] = [[] for _ in parts]
    covered: tuple[str, ...] = ()
    for name, module in network.named_modules():
        inside = {number_of.get(f"{name}.{key}") for key, _ in module.named_parameters()} if name else {None}
        number = inside.pop() if len(inside) == 1 else None
        if number is not None and not f"{name}.".startswith(covered):
            found[number].append(name)
            covered = (*covered, f"{name}.")
    for key, number in number_of.items():
        if not key.startswith(covered):
            found[number].append(key)
    return found


def _rest_of_classifier(network: nn.Module, parts: list[Part], head: str) -> list[Part]:
    """Add the layers of the classifier before the head as a part, or to the last part if they are all norms."""
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
    """Return the parts of a network of torchvision; None for other networks."""
    match network:
        case tv.ResNet():
            return [("stem", ["conv1", "bn1"]), *((name, [name]) for name in ("layer1", "layer2", "layer3", "layer4"))]
        case tv.RegNet():
            names = [name for name, _ in network.trunk_output.named_children()]
            return [("stem", ["stem"]), *((name, [f"trunk_output.{name}"]) for name in names)]
        case tv.ShuffleNetV2():
            stages = [("stage2", ["stage2"]), ("stage3", ["stage3"]), ("stage4", ["stage4", "conv5"])]
            return [("stem", ["conv1"]), *stages]
        case tv.DenseNet():
            return _densenet_parts()
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
        case tv.VGG() | tv.AlexNet() | tv.SqueezeNet() | tv.MobileNetV2() | tv.MobileNetV3():
            return _resolution_parts(network, "features")
        case tv.EfficientNet() | tv.ConvNeXt():
            return _resolution_parts(network, "features")
    return None


def _densenet_parts() -> list[Part]:
    blocks = [(f"denseblock{i}", [f"features.denseblock{i}", f"features.transition{i}"]) for i in (1, 2, 3)]
    last = ("denseblock4", ["features.denseblock4", "features.norm5"])
    return [("stem", ["features.conv0", "features.norm0"]), *blocks, last]


def _without_classifier(parts: list[Part]) -> list[Part]:
    """Leave the head and its dropout out of the parts."""
    backbone = [(name, [member for member in members if member not in ("dropout", "fc")]) for name, members in parts]
    return [part for part in backbone if part[1]]


def _with_tail(parts: list[Part], tail: list[str]) -> list[Part]:
    name, members = parts[-1]
    return [*parts[:-1], (name, [*members, *tail])]


def _transformer_parts(network: tv.VisionTransformer) -> list[Part]:
    """Return the embedding of a vision transformer, and the quarters of its blocks."""
    blocks = [f"encoder.layers.{name}" for name, _ in network.encoder.layers.named_children()]
    size = -(-len(blocks) // 4)
    quarters = [blocks[start : start + size] for start in range(0, len(blocks), size)]
    embedding = ["conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout"]
    parts = [("embedding", embedding), *((f"blocks{i}", quarter) for i, quarter in enumerate(quarters, start=1))]
    return _with_tail(parts, ["encoder.ln"])


def _resolution_parts(network: nn.Module, container: str) -> list[Part]:
    """Return the runs of a sequential container's children between reductions of the area; the first is the stem."""
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
    """Return the area of the feature maps of each child of a container for an image of 224 px, in order.

    The result is cached per architecture, as a pass on the meta device takes as long as a hundred steps of a head.
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
    """Return the top-level children with parameters, in the order of their definition, up to the head."""
    children = [
        name
        for name, child in network.named_children()
        if name != head.split(".")[0] and any(True for _ in child.parameters())
    ]
    loose = [key for key, _ in network.named_parameters(recurse=False)]
    parts: list[Part] = [("stem", loose)] if loose else []
    for name in children:
        # The name head is reserved for the last group.
        title = "neck" if name == "head" else name
        while title in {"head", *(used for used, _ in parts)}:
            title += "_"
        parts.append((title, [name]))
    return parts
