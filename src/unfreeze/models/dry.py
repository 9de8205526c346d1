"""What can be said of a classifier without its weights, and mostly without its memory."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import nn

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.architecture import find_architecture
from unfreeze.models.groups import LayerGroup, build_layer_groups, count_chosen
from unfreeze.models.heads import HeadSpec
from unfreeze.models.partition import CannotPartitionError, activations_of, keeps_statistics, partition_network
from unfreeze.models.spec import ModelSpec

_TIMED_IMAGES = 4


@dataclass(frozen=True)
class Edge:
    """Where a network would be cut below what trains.

    Args:
        name: What the boundary is called, such as "avgpool".
        row_bytes: Bytes of an image's activations there, in float32.
        keeps_statistics: Whether norms before it have running statistics.
    """

    name: str
    row_bytes: int
    keeps_statistics: bool


def describe_groups(model: str | ModelSpec, num_classes: int) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a backbone with a new head, without its memory or weights."""
    return _skeleton(_spec(model), num_classes).groups


def group_sizes(model: str | ModelSpec, num_classes: int, *, head: HeadSpec | None = None) -> list[tuple[str, int]]:
    """Return the names of a backbone's groups from the head down, with their numbers of parameters.

    Raises:
        UnfreezeError: If the head does not go with the architecture.
    """
    skeleton = _skeleton(_spec(model), num_classes, head=head)
    sizes = {key: parameter.numel() for key, parameter in skeleton.network.named_parameters()}
    return [(group.name, sum(sizes[key] for key in group.parameters)) for group in skeleton.groups]


def check_image_size(model: str | ModelSpec, size_px: int) -> None:
    """Refuse an image size that an architecture can't take, without its memory or weights.

    Raises:
        UnfreezeError: Saying what the architecture said, and the smallest size above it that works.
    """
    spec = _spec(model)
    problem = _problem_at(spec, size_px)
    if problem is None:
        return
    works = _next_size(spec, size_px)
    hint = f"; the next size that works is {works}, type data.image_size={works}" if works else ""
    raise UnfreezeError(f"data.image_size: {spec.name} can't take images of {size_px} px ({problem}){hint}")


def count_trainable(
    model: str | ModelSpec,
    num_classes: int,
    live: Collection[str],
    only: Collection[str],
    *,
    head: HeadSpec | None = None,
) -> int:
    """Return what `models.groups.count_chosen` does, without memory or weights."""
    skeleton = _skeleton(_spec(model), num_classes, head=head)
    return count_chosen(skeleton.network, skeleton.groups, live, only)


@cache
def find_edge(model: str | ModelSpec, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
    """Return where a network would be cut below the groups that train; None where it would or could not be."""
    spec = _spec(model)
    skeleton = _skeleton(spec, num_classes, size_px)
    images = torch.empty(2, spec.in_chans, size_px, size_px, device="meta")
    try:
        partition = partition_network(skeleton.network.eval(), skeleton.groups, live)
        values = activations_of(partition.prefix, images) if partition is not None else ()
    except CannotPartitionError:
        return None
    except RuntimeError as error:
        if not _needs_values(error):
            raise
        return None
    if partition is None:
        return None
    row_bytes = sum(value.nbytes for value in values) // len(images)
    return Edge(partition.name, row_bytes, keeps_statistics(partition.prefix))


def prefix_seconds(model: str | ModelSpec, num_classes: int, *, size_px: int, live: Collection[str]) -> float:
    """Return what the part below the groups that train costs for an image on this machine's CPU, about.

    Raises:
        CannotPartitionError: If the network can't be cut there.
    """
    spec = _spec(model)
    architecture = find_architecture(spec)
    network = architecture.build(size_px)
    architecture.replace_heads(network, num_classes=num_classes)
    groups = _skeleton(spec, num_classes, size_px).groups
    partition = partition_network(network.to(memory_format=torch.channels_last).eval(), groups, live)
    if partition is None:
        return 0.0
    images = torch.rand(_TIMED_IMAGES, spec.in_chans, size_px, size_px).contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.no_grad():
        for _ in range(2):
            started = time.perf_counter()
            activations_of(partition.prefix, images)
            seconds.append(time.perf_counter() - started)
    return min(seconds) / len(images)


@dataclass(frozen=True, eq=False)
class _Skeleton:
    network: nn.Module
    groups: tuple[LayerGroup, ...]


@lru_cache(maxsize=8)
def _skeleton(
    spec: ModelSpec, num_classes: int, size_px: int | None = None, *, head: HeadSpec | None = None
) -> _Skeleton:
    """Return a network with a new head on the meta device; of any size where none is given."""
    architecture = find_architecture(spec)
    network = architecture.skeleton(size_px)
    with torch.device("meta"):
        heads = architecture.replace_heads(network, num_classes=num_classes, head=head)
    return _Skeleton(network, build_layer_groups(network, heads, architecture.parts(network, heads)))


def _spec(model: str | ModelSpec) -> ModelSpec:
    return ModelSpec(model) if isinstance(model, str) else model


@cache
def _problem_at(spec: ModelSpec, size_px: int) -> str | None:
    """Return what an architecture says to images of a size; None where it takes them."""
    try:
        _pass_an_image(spec, size_px)
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
        return first_line(error)
    return None


@torch.no_grad()
def _pass_an_image(spec: ModelSpec, size_px: int) -> None:
    """Let an architecture see an image: without its memory, unless it must know values to know what to do."""
    architecture, shape = find_architecture(spec), (1, spec.in_chans, size_px, size_px)
    try:
        architecture.skeleton(size_px).eval()(torch.empty(shape, device="meta"))
    except RuntimeError as error:
        if not _needs_values(error):
            raise
        architecture.build(size_px).eval()(torch.zeros(shape))


def _needs_values(error: RuntimeError) -> bool:
    """Return whether an error is PyTorch's about a tensor that has no values to look at."""
    return "meta" in str(error).lower()


def _next_size(spec: ModelSpec, size_px: int) -> int | None:
    """Return the smallest size above one that an architecture can't take, as far as steps of 32 and of 1 px find it."""
    coarse = next((size for size in range(size_px // 32 * 32 + 32, 513, 32) if _problem_at(spec, size) is None), None)
    if coarse is None:
        return None
    low, high = max(size_px, coarse - 32), coarse
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _problem_at(spec, middle) is None else (middle, high)
    return high
