"""Partition of a network at the edge of a layer group into a prefix and a suffix.

Both parts call the modules of the network itself, so they share its weights, modes and hooks, and its state_dict does
not change.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from unfreeze.models.groups import LayerGroup
from unfreeze.models.tracing import CannotPartitionError, Traces

Activations = tuple[Tensor, ...]

_IN_TRAINING = "its own forward, not a layer of it, does more in training than in evaluation before the boundary"
_USES_IMAGES = "its trainable part uses the images themselves"
_BATCH_TOLERANCE = 1e-2
"""Tolerance relative to the largest value: above rounding by the batch size, below the effect of batch statistics."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The two parts of a network.

    Args:
        prefix: Module from images to a tuple of activations.
        suffix: Module from these activations to logits.
        boundary: Names of the modules whose outputs are passed from the prefix to the suffix.
        groups: Names of the layer groups in the prefix.
    """

    prefix: nn.Module
    suffix: nn.Module
    boundary: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the boundary, such as "avgpool"."""
        return " + ".join(self.boundary)


def partition_network(
    network: nn.Module, groups: Collection[LayerGroup], live: Collection[str], *, image_shape: Sequence[int]
) -> Partition | None:
    """Cut a network before the deepest trainable group.

    Only modules that span the boundary are traced; all others are called unchanged. Operations without parameters and
    randomness are in the prefix if possible.

    Args:
        network: Image classifier.
        groups: Layer groups of the classifier, from the head down.
        live: Names of the trainable groups.
        image_shape: Channels, height and width of the images, for which the parts are valid.

    Returns:
        The parts; None if no group is frozen below the deepest trainable one.

    Raises:
        CannotPartitionError: If the network can't be traced, or its own code, outside its modules, differs between
            training and evaluation before the boundary.
    """
    above, below = _around(groups, live)
    if not below:
        return None
    sides = _Sides(network, above)
    traces = Traces(network, sides.spanning, image_shape)
    crossing, in_training = (_crossing(graph, sides, traces) for graph in (traces.evaluation, traces.training))
    suffix: nn.Module = traces.build(_suffix_graph(traces.evaluation, crossing, traces))
    if traces.differ:
        if [traces.keys[node] for node in crossing] != [traces.keys[node] for node in in_training]:
            raise CannotPartitionError(_IN_TRAINING)
        suffix = _OfMode(network, traces.build(_suffix_graph(traces.training, in_training, traces)), suffix)
    return Partition(
        prefix=traces.build(_prefix_graph(crossing)),
        suffix=suffix,
        boundary=tuple(_name_of(node) for node in crossing),
        groups=tuple(group.name for group in below),
    )


class _OfMode(nn.Module):
    """Suffix of a network whose own code differs in training, such as by a functional dropout before its head."""

    def __init__(self, network: nn.Module, training: nn.Module, evaluation: nn.Module) -> None:
        super().__init__()
        self.in_training = training
        self.in_evaluation = evaluation
        self._network = (network,)  # not a child: the graphs have those of its modules that they call

    def forward(self, *activations: Tensor) -> Tensor:
        """Return logits in the current mode of the network."""
        logits: Tensor = (self.in_training if self._network[0].training else self.in_evaluation)(*activations)
        return logits


def _around(groups: Collection[LayerGroup], live: Collection[str]) -> tuple[list[LayerGroup], list[LayerGroup]]:
    """Return the groups from the head down to the deepest trainable one, and the groups below."""
    ordered = list(groups)
    deepest = max(index for index, group in enumerate(ordered) if group.name in live)
    return ordered[: deepest + 1], ordered[deepest + 1 :]


class _Sides:
    """Modules and parameters of a network after the boundary, and modules that span it."""

    def __init__(self, network: nn.Module, after: Collection[LayerGroup]) -> None:
        self._parameters = {key for group in after for key in group.parameters}
        owned = {key for group in after for key in group.modules}
        self._every = every = [key for key, _ in network.named_parameters()]
        self._after: dict[str, bool] = {}
        self.spanning: set[str] = set()
        for name, module in network.named_modules(remove_duplicate=False):
            here = f"{name}." if name else ""
            inside = {key in self._parameters for key in every if key.startswith(here)}
            drawn = {f"{here}{key}".rstrip(".") in owned for key, child in module.named_modules() if _draws(child)}
            sides = inside | drawn
            self._after[name] = True in sides
            if len(sides) > 1 or not name:
                self.spanning.add(name)

    def is_after(self, node: fx.Node) -> bool:
        """Return whether a node uses a module or parameter after the boundary."""
        if node.op == "call_module":
            return self._after[str(node.target)]
        return node.op == "get_attr" and str(node.target) in self._parameters

    def is_before(self, node: fx.Node) -> bool:
        """Return whether a node uses parameters before the boundary."""
        used = str(node.target)
        here = used if node.op == "get_attr" else f"{used}."
        is_of_network = node.op in ("call_module", "get_attr") and any(key.startswith(here) for key in self._every)
        return is_of_network and not self.is_after(node)


def _draws(module: nn.Module) -> bool:
    """Return whether a module without parameters may be random in training: dropout and drop-path."""
    is_leaf = not any(True for _ in module.children()) and not any(True for _ in module.parameters())
    kind = type(module).__name__.lower()
    return is_leaf and (isinstance(module, nn.modules.dropout._DropoutNd) or "drop" in kind or "stochastic" in kind)


def _nodes_after(graph: fx.Graph, is_after: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Return the nodes after the boundary, and those that use their values."""
    after: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "output" or is_after(node) or any(used in after for used in node.all_input_nodes):
            after.add(node)
    return after


def _crossing(graph: fx.Graph, sides: _Sides, traces: Traces) -> list[fx.Node]:
    """Return the nodes before the boundary whose values are used after it, in the order of the graph."""
    after = _nodes_after(graph, sides.is_after)
    if traces.differ:
        moved = _nodes_after(graph, lambda node: sides.is_after(node) or traces.is_of_one_mode(node)) - after
        if any(sides.is_before(node) for node in moved):
            raise CannotPartitionError(_IN_TRAINING)
        after |= moved
    used = {value for node in after for value in node.all_input_nodes}
    passed = [node for node in graph.nodes if node in used and node not in after and node.op != "get_attr"]
    # Values that do not depend on the images are recomputed.
    crossing = [node for node in passed if traces.depends_on_images(node)]
    if not crossing or any(node.op == "placeholder" for node in crossing):
        raise CannotPartitionError(_USES_IMAGES)
    return crossing


def _prefix_graph(crossing: list[fx.Node]) -> fx.Graph:
    graph, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    wanted = _with_ancestors(crossing)
    for node in crossing[0].graph.nodes:
        if node in wanted:
            copied[node] = graph.node_copy(node, lambda used: copied[used])
    graph.output(tuple(copied[node] for node in crossing))
    return graph


def _suffix_graph(whole: fx.Graph, crossing: list[fx.Node], traces: Traces) -> fx.Graph:
    """Return the graph after the crossing nodes, up to the output."""
    graph, copied = fx.Graph(), dict[fx.Node, Any]()
    for node in crossing:
        copied[node] = graph.placeholder(node.name)
    output = [node for node in whole.nodes if node.op == "output"]
    batch = [node for node in whole.nodes if traces.is_batch(node)]
    wanted = _with_ancestors(output, stop={*crossing, *batch})
    for node in batch:
        if not wanted.isdisjoint(node.users):
            copied[node] = graph.call_method("size", (copied[crossing[0]], 0))
    for node in whole.nodes:
        if node in wanted and node not in copied:
            if node.op == "placeholder":
                raise CannotPartitionError(_USES_IMAGES)
            copied[node] = graph.node_copy(node, lambda used: copied[used])
    return graph


def _with_ancestors(nodes: list[fx.Node], stop: Collection[fx.Node] = ()) -> set[fx.Node]:
    visited: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in visited and node not in stop:
            visited.add(node)
            pending += node.all_input_nodes
    return visited


def _name_of(node: fx.Node) -> str:
    """Return the name of the last module before a node."""
    while node.op != "call_module" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return str(node.target)


def keeps_statistics(prefix: nn.Module) -> bool:
    """Return whether some norm of a prefix has running statistics."""
    return any(getattr(module, "running_mean", None) is not None for module in prefix.modules())


def activations_of(prefix: nn.Module, images: Tensor) -> Activations:
    """Return the activations of a prefix for some images.

    Args:
        prefix: Prefix of a partition.
        images: Preprocessed images, float32, shape (N, C, H, W).

    Raises:
        CannotPartitionError: If a value is not a tensor with a row per image.
    """
    values: tuple[Any, ...] = prefix(images)
    for value in values:
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(images):
            raise CannotPartitionError("its activations are not tensors with a row per image")
    return values


@torch.no_grad()
def check_partition(network: nn.Module, partition: Partition, images: Tensor) -> Activations:
    """Refuse a partition whose logits differ from the network's, or whose prefix depends on mode or batch.

    Args:
        network: Network in its training modes, which are restored.
        partition: Parts of the network.
        images: Preprocessed images, float32, shape (N, C, H, W).

    Returns:
        Activations of the images in the training modes.

    Raises:
        CannotPartitionError: If a value differs by more than 1e-5 of the largest, or depends on the rest of the batch.
    """
    modes = {module: module.training for module in network.modules()}
    in_training = activations_of(partition.prefix, images)
    if not all(value.isfinite().all() for value in in_training if value.is_floating_point()):
        raise CannotPartitionError("its frozen part outputs values that are not finite")
    network.eval()
    try:
        in_evaluation = activations_of(partition.prefix, images) if _trains(partition.prefix, modes) else in_training
        single = _single_activations(partition.prefix, images[:1])
        whole, parts = network.forward(images), partition.suffix(*in_evaluation)  # forward: not the compiled network
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not all(_close(a, b) for a, b in zip(in_training, in_evaluation, strict=True)):
        raise CannotPartitionError("its frozen part differs between training and evaluation")
    if not all(_close(a, b[:1], tolerance=_BATCH_TOLERANCE) for a, b in zip(single, in_evaluation, strict=True)):
        raise CannotPartitionError("its frozen part's output for an image depends on the other images of the batch")
    if not _close(whole, parts):
        raise CannotPartitionError("the logits of its parts differ from its own")
    return in_training


def _trains(part: nn.Module, modes: Mapping[nn.Module, bool]) -> bool:
    """Return whether a module that a part calls is in train mode; containers are not called."""
    called = (each for each in part.modules() if type(each) is not nn.Module and not isinstance(each, fx.GraphModule))
    return any(modes.get(module, True) for module in called)


def _single_activations(prefix: nn.Module, image: Tensor) -> Activations:
    try:
        return activations_of(prefix, image)
    except ValueError:  # of a norm without running statistics
        raise CannotPartitionError("its frozen part does not support a single image") from None


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(a.abs().max()))
