"""A network cut in two at the edge of a layer group: what comes before, and what comes after.

Both parts call the modules of the network itself, so they share its weights, its modes and its hooks, and its
state_dict stays what it was.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from unfreeze.models.groups import LayerGroup
from unfreeze.models.tracing import CannotPartitionError, Traces

Activations = tuple[Tensor, ...]

_IN_TRAINING = "its forward itself, not a layer of it, does in training more than in evaluation before what trains"
_BESIDE_OTHERS = 1e-2
"""Of the largest value: more than batches of other sizes round, less than a batch's own statistics make."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The two parts of a network.

    Args:
        prefix: Takes images, returns a tuple of activations.
        suffix: Takes these activations, returns logits.
        boundary: Names of the nodes whose values pass from one to the other.
        groups: Names of the layer groups that lie in the prefix.
    """

    prefix: nn.Module
    suffix: nn.Module
    boundary: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the boundary is called, such as "avgpool"."""
        return " + ".join(self.boundary)


def partition_network(
    network: nn.Module, groups: Collection[LayerGroup], live: Collection[str], *, image_shape: Sequence[int]
) -> Partition | None:
    """Cut a network before the deepest group that trains.

    Only modules that lie on both sides are looked into; all others are called as they are. What has no parameters and
    draws nothing stands in the prefix as far as it can.

    Args:
        network: A classifier of images.
        groups: Its layer groups, from the head down.
        live: Names of those that train.
        image_shape: Channels, height and width of the images, for which alone the parts hold.

    Returns:
        The parts; None where no group is frozen below the deepest live one.

    Raises:
        CannotPartitionError: If the network can't be traced, or its own code, outside its modules, does before the
            boundary in training what it does not in evaluation.
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


def bridge_network(
    network: nn.Module,
    groups: Collection[LayerGroup],
    live: Collection[str],
    *,
    start: Collection[str],
    image_shape: Sequence[int],
) -> fx.GraphModule:
    """Return what lies between two edges: it takes the activations at the deeper one, and returns those at the other.

    Args:
        network: A classifier of images.
        groups: Its layer groups, from the head down.
        live: Names of those that train above the later edge.
        start: Names of those that would train above the edge to start from, which lies deeper.
        image_shape: As for `partition_network`.

    Raises:
        CannotPartitionError: If the network can't be cut at both.
    """
    ends = _Sides(network, _around(groups, live)[0])
    starts = _Sides(network, _around(groups, start)[0])
    traces = Traces(network, ends.spanning | starts.spanning, image_shape)
    begin, end = (_crossing(traces.evaluation, sides, traces) for sides in (starts, ends))
    return traces.build(_suffix_graph(traces.evaluation, begin, traces, ends=end))


class _OfMode(nn.Module):
    """The suffix of a network whose own code does something else in training, such as a dropout before its head."""

    def __init__(self, network: nn.Module, training: nn.Module, evaluation: nn.Module) -> None:
        super().__init__()
        self.in_training = training
        self.in_evaluation = evaluation
        self._network = (network,)  # no child: of its modules those that the graphs call are there already

    def forward(self, *activations: Tensor) -> Tensor:
        """Return logits, as the network's present mode has them."""
        logits: Tensor = (self.in_training if self._network[0].training else self.in_evaluation)(*activations)
        return logits


def _around(groups: Collection[LayerGroup], live: Collection[str]) -> tuple[list[LayerGroup], list[LayerGroup]]:
    """Return the groups from the head down to the deepest live one, and those before it."""
    ordered = list(groups)
    deepest = max(index for index, group in enumerate(ordered) if group.name in live)
    return ordered[: deepest + 1], ordered[deepest + 1 :]


class _Sides:
    """Which modules and parameters of a network lie after the boundary, and which on both sides."""

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
        """Return whether a node uses something that lies after the boundary."""
        if node.op == "call_module":
            return self._after[str(node.target)]
        return node.op == "get_attr" and str(node.target) in self._parameters

    def is_before(self, node: fx.Node) -> bool:
        """Return whether a node uses parameters that lie before the boundary."""
        used = str(node.target)
        here = used if node.op == "get_attr" else f"{used}."
        is_of_network = node.op in ("call_module", "get_attr") and any(key.startswith(here) for key in self._every)
        return is_of_network and not self.is_after(node)


def _draws(module: nn.Module) -> bool:
    """Return whether a module without parameters may do something else in training: dropout and drop-path."""
    is_leaf = not any(True for _ in module.children()) and not any(True for _ in module.parameters())
    kind = type(module).__name__.lower()
    return is_leaf and (isinstance(module, nn.modules.dropout._DropoutNd) or "drop" in kind or "stochastic" in kind)


def _nodes_after(graph: fx.Graph, is_after: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Return the nodes that lie after the boundary themselves, and those that use what they compute."""
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
    # What does not depend on the images is computed anew.
    crossing = [node for node in passed if traces.sees_images(node)]
    if not crossing or any(node.op == "placeholder" for node in crossing):
        raise CannotPartitionError("what trains sees the images themselves")
    return crossing


def _prefix_graph(crossing: list[fx.Node]) -> fx.Graph:
    graph, copied = fx.Graph(), dict[fx.Node, fx.Node]()
    wanted = _with_ancestors(crossing)
    for node in crossing[0].graph.nodes:
        if node in wanted:
            copied[node] = graph.node_copy(node, lambda used: copied[used])
    graph.output(tuple(copied[node] for node in crossing))
    return graph


def _suffix_graph(
    whole: fx.Graph, crossing: list[fx.Node], traces: Traces, ends: list[fx.Node] | None = None
) -> fx.Graph:
    """Return what comes after some nodes: up to the output, or to the values of other nodes."""
    graph, copied = fx.Graph(), dict[fx.Node, Any]()
    for node in crossing:
        copied[node] = graph.placeholder(node.name)
    output = [node for node in whole.nodes if node.op == "output"]
    batch = [node for node in whole.nodes if traces.is_batch(node)]
    wanted = _with_ancestors(output if ends is None else ends, stop={*crossing, *batch})
    for node in batch:
        if not wanted.isdisjoint(node.users):
            copied[node] = graph.call_method("size", (copied[crossing[0]], 0))
    for node in whole.nodes:
        if node in wanted and node not in copied:
            if node.op == "placeholder":
                raise CannotPartitionError("what trains sees the images themselves")
            copied[node] = graph.node_copy(node, lambda used: copied[used])
    if ends is not None:
        graph.output(tuple(copied[node] for node in ends))
    return graph


def _with_ancestors(nodes: list[fx.Node], stop: Collection[fx.Node] = ()) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in seen and node not in stop:
            seen.add(node)
            waiting += node.all_input_nodes
    return seen


def _name_of(node: fx.Node) -> str:
    """Return the module that a value comes out of, looking back over what only changes its shape."""
    while node.op != "call_module" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return str(node.target)


def keeps_statistics(prefix: nn.Module) -> bool:
    """Return whether some norm of a prefix has running statistics."""
    return any(getattr(module, "running_mean", None) is not None for module in prefix.modules())


def activations_of(prefix: nn.Module, images: Tensor) -> Activations:
    """Return what a prefix passes on for some images.

    Args:
        prefix: Of a partition.
        images: Preprocessed, float32, shape (N, C, H, W).

    Raises:
        CannotPartitionError: If a value is no tensor with a row for each image.
    """
    values: tuple[Any, ...] = prefix(images)
    for value in values:
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(images):
            raise CannotPartitionError("it passes on something else than a row for each image")
    return values


@torch.no_grad()
def check_partition(network: nn.Module, partition: Partition, images: Tensor) -> Activations:
    """Refuse a partition that does not give the network's own logits, or whose prefix is not the same at all times.

    Args:
        network: In the modes in which it trains; it is left in them.
        partition: Its parts.
        images: Some images, preprocessed, float32, shape (N, C, H, W).

    Returns:
        The activations of the images, as training has them.

    Raises:
        CannotPartitionError: If a value differs by more than 1e-5 of the largest, or depends on the rest of the batch.
    """
    modes = {module: module.training for module in network.modules()}
    in_training = activations_of(partition.prefix, images)
    if not all(value.isfinite().all() for value in in_training if value.is_floating_point()):
        raise CannotPartitionError("its frozen part gives values that are not finite")
    network.eval()
    try:
        in_evaluation = activations_of(partition.prefix, images) if _trains(partition.prefix, modes) else in_training
        alone = _alone(partition.prefix, images[:1])
        whole, parts = network.forward(images), partition.suffix(*in_evaluation)  # not what is compiled of it
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not all(_close(a, b) for a, b in zip(in_training, in_evaluation, strict=True)):
        raise CannotPartitionError("its frozen part does in training what it does not in evaluation")
    if not all(_close(a, b[:1], tolerance=_BESIDE_OTHERS) for a, b in zip(alone, in_evaluation, strict=True)):
        raise CannotPartitionError("what its frozen part makes of an image depends on the others of its batch")
    if not _close(whole, parts):
        raise CannotPartitionError("its parts do not give the logits of the whole")
    return in_training


@torch.no_grad()
def check_bridge(deeper: Partition, bridge: nn.Module, later: Partition, images: Tensor) -> None:
    """Refuse a bridge that does not lead from the activations at one edge to those at another.

    Args:
        deeper: Where it starts.
        bridge: What leads on.
        later: Where it ends.
        images: Some images, preprocessed, float32, shape (N, C, H, W).

    Raises:
        CannotPartitionError: If a value differs by more than 1e-5 of the largest.
    """
    bridged, direct = bridge(*activations_of(deeper.prefix, images)), activations_of(later.prefix, images)
    if len(bridged) != len(direct) or not all(_close(a, b) for a, b in zip(bridged, direct, strict=True)):
        raise CannotPartitionError("its parts do not give the activations of the whole")


def _trains(part: nn.Module, modes: Mapping[nn.Module, bool]) -> bool:
    """Return whether anything that a part calls is in training by some modes; what only holds others is not called."""
    called = (each for each in part.modules() if type(each) is not nn.Module and not isinstance(each, fx.GraphModule))
    return any(modes.get(module, True) for module in called)


def _alone(prefix: nn.Module, image: Tensor) -> Activations:
    try:
        return activations_of(prefix, image)
    except ValueError:  # of a norm that has no statistics but a batch's
        raise CannotPartitionError("its frozen part can't take an image alone") from None


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(a.abs().max()))
