"""Write architectures.jsonl: facts about torchvision's classifiers that can be read without torch.

`python tools/list_architectures.py` takes a quarter of an hour on one core. Everything is computed on the meta device:
layer groups with their parameters, the supported image sizes, and for each boundary between two groups the number of
activations per image at any size, and the share of the multiply-adds below it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from unfreeze.assets import ARCHITECTURES
from unfreeze.errors import UnfreezeError
from unfreeze.models.analysis import check_image_size, count_flops, find_edge
from unfreeze.models.architecture import Architecture, find_architecture
from unfreeze.models.channels import find_first_convolution
from unfreeze.models.groups import LayerGroup, build_layer_groups
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.norms import NORMS
from unfreeze.models.outline import Growth
from unfreeze.models.partition import Partition, keeps_statistics, partition_network
from unfreeze.models.spec import ModelSpec
from unfreeze.models.torchvision_models import TorchvisionModel, classifier_names
from unfreeze.models.tracing import CannotPartitionError

_SIZES = (33, 64, 65, 96, *range(192, 224), 299, 384)
"""Image sizes in pixels at which activations are counted."""

_TRIED = (8, 16, 24, 31, 32, 33, 48, 63, 64, 96, 100, 112, 128, 160)
_FURTHER = (192, 200, 224, 256, 288, 299, 300, 320, 384, 448, 480)
"""Image sizes in pixels at which the rule for image sizes is checked."""

_STOCK_SIZE = 224
"""Default image size in pixels of networks that are built for one size."""

_CLASSES = 10
"""Number of classes of the head in the multiply-adds."""

_STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 64, 112, 224)


def describe(name: str) -> dict[str, Any]:
    """Return the record of an architecture."""
    architecture = find_architecture(ModelSpec(name))
    network = architecture.skeleton().eval().requires_grad_(False)
    head = find_head(network)
    layer = network.get_submodule(head)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    groups = build_layer_groups(network, head)
    with torch.device("meta"):
        replace_head(network, head, num_classes=_CLASSES)
    return {
        "name": name,
        "weights": {key: _crop(architecture, key) for key in architecture.weight_names},
        "crop": architecture.preprocessing().crop_px,
        "sizes": _size_rule(architecture, architecture.preprocessing().crop_px),
        "first": f"{find_first_convolution(network)}.weight",
        "head": {
            "is_linear": isinstance(layer, nn.Linear),
            "width": layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels,
            "bias": layer.bias is not None,
        },
        "groups": {group.name: _parameters(network, group) for group in groups[1:]},
        "edges": {group.name: _edge(architecture, network, groups, index) for index, group in enumerate(groups[:-1])},
    }


def _crop(architecture: Architecture, weights: str) -> int:
    return architecture.preprocessing(weights).crop_px


def _parameters(network: nn.Module, group: LayerGroup) -> str:
    """Return the parameters of a group as words: name, size, and an n if it belongs to a norm."""
    return " ".join(
        f"{key}:{network.get_parameter(key).numel()}"
        f"{'n' if isinstance(network.get_submodule(key.rpartition('.')[0]), NORMS) else ''}"
        for key in group.parameters
    )


def _supports(architecture: Architecture, size: int) -> bool:
    if _is_sized(architecture):
        try:
            check_image_size(architecture.name, size)
        except UnfreezeError:
            return False
        return True
    try:
        _skeleton(architecture.name)(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError):
        return False
    return True


def _is_sized(architecture: Architecture) -> bool:
    """Return whether the network is built for images of one size."""
    assert isinstance(architecture, TorchvisionModel)
    return bool(architecture.size_options(_STOCK_SIZE))


@cache
def _skeleton(name: str) -> nn.Module:
    return find_architecture(name).skeleton().eval().requires_grad_(False)


def _size_rule(architecture: Architecture, crop_px: int) -> list[int] | None:
    """Return the smallest supported size and the step between sizes; None if there is no such rule."""
    supported = {size: _supports(architecture, size) for size in (*_TRIED, *_FURTHER, crop_px)}
    for step in _STEPS:
        low = next(
            (size for size in range(step * -(-8 // step), crop_px + 1, step) if _supports(architecture, size)), None
        )
        if low is not None and all(supported[size] == (size >= low and size % step == 0) for size in supported):
            return [low, step]
    return None


def _edge(
    architecture: Architecture, network: nn.Module, groups: Sequence[LayerGroup], deepest: int
) -> list[Any] | None:
    """Return the boundary below a group: name, running statistics, growth with the image size, share of operations."""
    live = [group.name for group in groups[: deepest + 1]]
    size = _STOCK_SIZE if _is_sized(architecture) else architecture.preprocessing().crop_px
    image = torch.empty(1, 3, size, size, device="meta")
    try:
        partition = partition_network(network, groups, live, image_shape=image.shape[1:])
    except CannotPartitionError:
        return None
    assert partition is not None
    growth = _growth(architecture, live, partition)
    if growth is None:
        raise RuntimeError(f"{architecture.name}: no function fits the activations at {partition.name}")
    share = count_flops(partition.prefix, image) / count_flops(network, image)
    return [partition.name, keeps_statistics(partition.prefix), *growth, round(share, 4)]


def _growth(architecture: Architecture, live: Sequence[str], partition: Partition) -> Growth | None:
    """Return the number of activations at a boundary as a function of the image size."""
    if _is_sized(architecture):
        sizes = [size for size in (64, 96, 128, 160, 224, 288, 384, 448) if _supports(architecture, size)]
        measured = _values_at(architecture, live, sizes)
    else:
        measured = _values(architecture, live, partition)
    return next((growth for growth in _candidates(measured) if _holds(growth, measured)), None)


def _values(architecture: Architecture, live: Sequence[str], partition: Partition) -> dict[int, int]:
    """Return the number of activations per image at a boundary, by image size."""
    by_size = _outputs(architecture.name)
    largest = max(by_size)
    of_modules = sum(by_size[largest].get(name, 0) for name in partition.boundary)
    if of_modules == _values_at(architecture, live, [largest]).get(largest):
        return {size: sum(values[name] for name in partition.boundary) for size, values in by_size.items()}
    # The activations are not the output of a module, but of a function, such as a mean.
    return _values_at(architecture, live, list(by_size))


def _values_at(architecture: Architecture, live: Sequence[str], sizes: Sequence[int]) -> dict[int, int]:
    """Return the number of activations per image at a boundary, tracing the network for each size."""
    edges = {size: find_edge(architecture.name, _CLASSES, size_px=size, live=tuple(live)) for size in sizes}
    return {size: edge.row_bytes // 4 for size, edge in edges.items() if edge is not None}


@cache
def _outputs(name: str) -> dict[int, dict[str, int]]:
    """Return the number of outputs per image of each module of a network, by image size."""
    network, found = _skeleton(name), dict[int, dict[str, int]]()
    outputs: dict[str, int] = {}

    def record(key: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                outputs[key] = output.numel()

        return hook

    hooks = [module.register_forward_hook(record(key)) for key, module in network.named_modules()]
    for size in _SIZES:
        outputs.clear()
        try:
            network(torch.empty(1, 3, size, size, device="meta"))
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError):
            continue
        found[size] = dict(outputs)
    for each in hooks:
        each.remove()
    return found


def _candidates(measured: dict[int, int]) -> Iterator[Growth]:
    """Yield functions that fit the smallest and the largest size: area * ((px + offset) // stride)**2 + fixed."""
    low, high = min(measured), max(measured)
    if len(set(measured.values())) == 1:
        yield Growth(0, 1, 0, measured[low])
        return
    for stride in (1, 2, 4, 8, 14, 16, 32):
        for offset in range(-2 * stride - 8, 2 * stride):
            areas = [((size + offset) // stride) ** 2 for size in (low, high)]
            if areas[0] == areas[1]:
                continue
            area, rest = divmod(measured[high] - measured[low], areas[1] - areas[0])
            fixed = measured[low] - area * areas[0]
            if not rest and area > 0 and fixed >= 0:
                yield Growth(area, stride, offset, fixed)


def _holds(growth: Growth, measured: dict[int, int]) -> bool:
    return all(growth.at(size) == values for size, values in measured.items())


def main() -> None:
    """Write the records of all architectures, or of those on the command line."""
    names = sys.argv[1:] or ["tiny", *classifier_names()]
    with ARCHITECTURES.open("w", encoding="utf-8") as file:
        file.write(json.dumps({library: version(library) for library in ("torchvision", "timm")}) + "\n")
        for name in names:
            file.write(json.dumps(describe(name), separators=(",", ":")) + "\n")
            file.flush()
            sys.stderr.write(f"{name}\n")


if __name__ == "__main__":
    main()
