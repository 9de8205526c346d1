"""Analysis of classifiers on the meta device: layer groups, image sizes, boundaries and operations."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.architecture import find_architecture
from unfreeze.models.groups import LayerGroup, build_layer_groups, count_chosen
from unfreeze.models.outline import Edge, Outline
from unfreeze.models.partition import activations_of, keeps_statistics, partition_network
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.tracing import CannotPartitionError


def describe_groups(model: str | ModelSpec, num_classes: int) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a backbone with a new head."""
    return _skeleton(_spec(model), num_classes).groups


def group_sizes(model: str | ModelSpec, num_classes: int, *, head: HeadSpec | None = None) -> list[tuple[str, int]]:
    """Return the names of a backbone's groups from the head down, with their numbers of parameters.

    Raises:
        UnfreezeError: If the architecture does not support the head.
    """
    skeleton = _skeleton(_spec(model), num_classes, head=head)
    sizes = {key: parameter.numel() for key, parameter in skeleton.network.named_parameters()}
    return [(group.name, sum(sizes[key] for key in group.parameters)) for group in skeleton.groups]


def check_image_size(model: str | ModelSpec, size_px: int) -> None:
    """Refuse an image size that an architecture does not support.

    Raises:
        UnfreezeError: If it does not, with the architecture's error and the next larger size that works.
    """
    spec = _spec(model)
    problem = _problem_at(spec, size_px)
    if problem is None:
        return
    larger = _next_size(spec, size_px)
    hint = f"; the next size that works is {larger}, type data.image_size={larger}" if larger else ""
    raise UnfreezeError(f"data.image_size: {spec.name} can't take images of {size_px} px ({problem}){hint}")


def count_trainable(
    model: str | ModelSpec,
    num_classes: int,
    live: Collection[str],
    only: Collection[str],
    *,
    head: HeadSpec | None = None,
) -> int:
    """Return the total size of the trainable parameters; see `models.groups.count_chosen`."""
    skeleton = _skeleton(_spec(model), num_classes, head=head)
    return count_chosen(skeleton.network, skeleton.groups, live, only)


@cache
def find_edge(model: str | ModelSpec, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
    """Return the edge below the trainable groups; None if nothing is frozen or the network can't be cut."""
    spec = _spec(model)
    skeleton = _skeleton(spec, num_classes, size_px)
    images = torch.empty(2, spec.in_chans, size_px, size_px, device="meta")
    try:
        partition = partition_network(skeleton.network.eval(), skeleton.groups, live, image_shape=images.shape[1:])
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
    share = count_flops(partition.prefix, images) / max(1, count_flops(skeleton.network, images))
    return Edge(partition.name, row_bytes, keeps_statistics(partition.prefix), share)


def count_flops(network: nn.Module, images: torch.Tensor) -> int:
    """Return the number of operations of a forward pass; images and network may be on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return int(counter.get_total_flops())


class DryOutline(Outline):
    """Outline of a network that is built on the meta device.

    Args:
        spec: Specification of the network.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def check_weights(self, weights: str | None) -> None:
        """Refuse weights that are neither published nor a file."""
        find_architecture(self._spec).check_weights(weights)

    def check_image_size(self, size_px: int) -> None:
        """Refuse an image size that the network does not support."""
        check_image_size(self._spec, size_px)

    def crop_px(self, weights: str | None) -> int:
        """Return the image size of published weights, or else of the default ones."""
        return find_architecture(self._spec).preprocessing(weights).crop_px

    def group_sizes(self, num_classes: int, head: HeadSpec) -> list[tuple[str, int]]:
        """Return the names of the layer groups from the head down, with their numbers of parameters."""
        return group_sizes(self._spec, num_classes, head=head)

    def count_trainable(self, num_classes: int, live: Collection[str], only: Collection[str], head: HeadSpec) -> int:
        """Return the total size of the trainable parameters; 0 if `only` matches none."""
        return count_trainable(self._spec, num_classes, live, only, head=head)

    def find_edge(self, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
        """Return the edge below the trainable groups; None if nothing is frozen or the network can't be cut."""
        return find_edge(self._spec, num_classes, size_px=size_px, live=live)


@dataclass(frozen=True, eq=False)
class _Skeleton:
    network: nn.Module
    groups: tuple[LayerGroup, ...]


@lru_cache(maxsize=8)
def _skeleton(
    spec: ModelSpec, num_classes: int, size_px: int | None = None, *, head: HeadSpec | None = None
) -> _Skeleton:
    """Return a network with a new head on the meta device; None for its own image size."""
    architecture = find_architecture(spec)
    network = architecture.skeleton(size_px)
    with torch.device("meta"):
        heads = architecture.replace_heads(network, num_classes=num_classes, head=head)
    return _Skeleton(network, build_layer_groups(network, heads, architecture.parts(network, heads)))


def _spec(model: str | ModelSpec) -> ModelSpec:
    return ModelSpec(model) if isinstance(model, str) else model


@cache
def _problem_at(spec: ModelSpec, size_px: int) -> str | None:
    """Return the error of an architecture for images of a size; None if it supports them."""
    try:
        _forward_image(spec, size_px)
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
        return first_line(error)
    return None


@torch.no_grad()
def _forward_image(spec: ModelSpec, size_px: int) -> None:
    """Run an architecture on an image: on the meta device, or on the CPU if it depends on values."""
    architecture, shape = find_architecture(spec), (1, spec.in_chans, size_px, size_px)
    try:
        architecture.skeleton(size_px).eval()(torch.empty(shape, device="meta"))
    except RuntimeError as error:
        if not _needs_values(error):
            raise
        architecture.build(size_px).eval()(torch.zeros(shape))


def _needs_values(error: RuntimeError) -> bool:
    """Return whether an error of PyTorch is about missing values of a meta tensor."""
    return "meta" in str(error).lower()


def _next_size(spec: ModelSpec, size_px: int) -> int | None:
    """Return the next larger size that an architecture supports, found in steps of 32 px and then by bisection."""
    coarse = next((size for size in range(size_px // 32 * 32 + 32, 513, 32) if _problem_at(spec, size) is None), None)
    if coarse is None:
        return None
    low, high = max(size_px, coarse - 32), coarse
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _problem_at(spec, middle) is None else (middle, high)
    return high
