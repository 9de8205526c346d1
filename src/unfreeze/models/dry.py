"""What can be said of a classifier without its weights, and mostly without its memory."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import nn

from unfreeze.errors import UnfreezeError
from unfreeze.models.backbones import find_architecture
from unfreeze.models.groups import LayerGroup, build_layer_groups
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.partition import CannotPartitionError, Partition, activations_of, partition_network

_TIMED_IMAGES = 4


@dataclass(frozen=True)
class Edge:
    """Where a network would be cut below what trains.

    Args:
        name: What the boundary is called, such as "avgpool".
        row_bytes: Bytes of an image's activations there, in float32.
    """

    name: str
    row_bytes: int


def describe_groups(name: str, num_classes: int) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a backbone with a new head, without its memory or weights."""
    return build_layer_groups(*_skeleton(name, num_classes))


def group_sizes(name: str, num_classes: int) -> list[tuple[str, int]]:
    """Return the names of a backbone's groups from the head down, with their numbers of parameters."""
    network, head = _skeleton(name, num_classes)
    sizes = {key: parameter.numel() for key, parameter in network.named_parameters()}
    return [(group.name, sum(sizes[key] for key in group.parameters)) for group in build_layer_groups(network, head)]


def check_image_size(name: str, size_px: int) -> None:
    """Refuse an image size that an architecture can't take, without its memory or weights.

    Raises:
        UnfreezeError: Saying what the architecture said.
    """
    network, _ = _skeleton(name, 2)
    try:
        with torch.no_grad():
            network.eval()(torch.empty(1, 3, size_px, size_px, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnfreezeError(f"data.image_size: {name} can't take images of {size_px} px ({reason})") from None


@lru_cache(maxsize=4)
def _skeleton(name: str, num_classes: int) -> tuple[nn.Module, str]:
    network = find_architecture(name).skeleton()
    head = find_head(network)
    with torch.device("meta"):
        replace_head(network, head, num_classes=num_classes, dropout=None)
    return network, head


@cache
def find_edge(name: str, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
    """Return where a network would be cut below the groups that train; None where it would or could not be."""
    network, head = _skeleton(name, num_classes)
    images = torch.empty(2, 3, size_px, size_px, device="meta")
    try:
        partition = _cut(network, head, live)
        values = activations_of(partition.prefix, images) if partition is not None else ()
    except CannotPartitionError:
        return None
    return None if partition is None else Edge(partition.name, sum(value.nbytes for value in values) // len(images))


def prefix_seconds(name: str, num_classes: int, *, size_px: int, live: Collection[str]) -> float:
    """Return what the part below the groups that train costs for an image on this machine's CPU, about.

    Raises:
        CannotPartitionError: If the network can't be cut there.
    """
    network = find_architecture(name).build()
    head = find_head(network)
    replace_head(network, head, num_classes=num_classes, dropout=None)
    partition = _cut(network.to(memory_format=torch.channels_last), head, live)
    if partition is None:
        return 0.0
    images = torch.rand(_TIMED_IMAGES, 3, size_px, size_px).contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.no_grad():
        for _ in range(2):
            started = time.perf_counter()
            activations_of(partition.prefix, images)
            seconds.append(time.perf_counter() - started)
    return min(seconds) / len(images)


def _cut(network: nn.Module, head: str, live: Collection[str]) -> Partition | None:
    return partition_network(network.eval(), build_layer_groups(network, head), live)
