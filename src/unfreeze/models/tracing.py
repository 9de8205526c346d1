"""Graphs of a network's forward in training and in evaluation."""

import inspect
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, fx, nn

_CONSTANT = "_constant"
"""Prefix of the names of tensors that a network's own code creates while it is traced."""

_BATCHES = (2, 3)
"""Sizes of two small batches: a length that differs between them depends on the batch."""


class CannotPartitionError(Exception):
    """A network can't be cut at an edge; the message is the reason."""


class _Shaped(fx.Proxy):
    """A traced value with a known dtype and shape, whose lengths are plain numbers except for the batch.

    Code can therefore use them in comparisons and to build position embeddings.
    """

    tracer: "_Tracer"

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tracer.shape_of(self.node)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.tracer.example_of(self.node).dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.tracer.example_of(self.node).device
        return device

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def __getitem__(self, key: Any) -> Any:
        """Return one of several outputs of a module; plain values, such as a height and width, without a proxy."""
        item = self.tracer.create_proxy("call_function", operator.getitem, (self, key), {})
        return self.tracer.plain_value(item) if isinstance(key, int) else item


class _Tracer(fx.Tracer):
    """Tracer for images of one size that evaluates nodes on demand for two small batches.

    Args:
        spanning: Names of the modules that are traced.
        image_shape: Channels, height and width of the images.
    """

    def __init__(self, spanning: Collection[str], image_shape: Sequence[int]) -> None:
        super().__init__()
        self._spanning = spanning
        self._image_shape = image_shape
        self._examples: tuple[dict[fx.Node, Any], ...] = ({}, {})
        self._is_evaluating = False
        self.batch: fx.Node | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._spanning

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._is_evaluating else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._is_evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Shaped(node, self)

    def shape_of(self, node: fx.Node) -> tuple[Any, ...]:
        """Return a shape in which multiples of the batch are proxies, and all other lengths plain numbers."""
        few, many = (self._evaluate(node, which).shape for which in range(len(_BATCHES)))
        return tuple(a if a == b else self._multiple_of_batch(a, b) for a, b in zip(few, many, strict=True))

    def example_of(self, node: fx.Node) -> Any:
        """Return the value of a node for the smaller batch."""
        return self._evaluate(node, 0)

    def plain_value(self, proxy: Any) -> Any:
        """Return the value of a proxy if it is not a tensor and equal for both batches; else the proxy."""
        few, many = (self._evaluate(proxy.node, which) for which in range(len(_BATCHES)))
        return few if _is_plain(few) and few == many else proxy

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        values = self.example_of(obj.node)
        if not isinstance(values, tuple | list):
            return super().iter(obj)
        return iter([operator.getitem(obj, position) for position in range(len(values))])

    def _multiple_of_batch(self, few: int, many: int) -> Any:
        factor = few // _BATCHES[0]
        if (few, many) != (factor * _BATCHES[0], factor * _BATCHES[1]):
            raise CannotPartitionError("a length in it is not a multiple of the batch")
        if self.batch is None:
            images = next(iter(self.graph.nodes))
            self.batch = self.create_proxy("call_method", "size", (self.proxy(images), 0), {}).node
        batch = self.proxy(self.batch)
        return batch if factor == 1 else operator.mul(batch, factor)

    def _evaluate(self, node: fx.Node, which: int) -> Any:
        known = self._examples[which]
        if node in known:
            return known[node]
        wanted, pending = set[fx.Node](), [node]
        while pending:
            upcoming = pending.pop()
            if upcoming not in known and upcoming not in wanted:
                wanted.add(upcoming)
                pending += upcoming.all_input_nodes
        modes = {module: module.training for module in self.root.modules()}
        self.root.eval()
        self._is_evaluating = True
        try:
            with torch.no_grad():
                for each in [each for each in self.graph.nodes if each in wanted]:
                    known[each] = self._result(each, which)
        finally:
            self._is_evaluating = False
            for module, mode in modes.items():
                module.training = mode
        return known[node]

    def _result(self, node: fx.Node, which: int) -> Any:
        known, target = self._examples[which], node.target
        args, kwargs = _filled_in(node.args, known), _filled_in(node.kwargs, known)
        match node.op:
            case "placeholder" if node is next(iter(self.graph.nodes)):
                own = next(each for each in self.root.parameters())
                return torch.zeros(_BATCHES[which], *self._image_shape, dtype=own.dtype, device=own.device)
            case "placeholder":
                return args[0] if args else None
            case "get_attr":
                return reduce(getattr, str(target).split("."), self.root)
            case "call_module":
                return self.root.get_submodule(str(target))(*args, **kwargs)
            case "call_method":
                return getattr(args[0], str(target))(*args[1:], **kwargs)
            case _:
                assert callable(target)
                return target(*args, **kwargs)


class Traces:
    """Graphs of a network in training and in evaluation, which are equal unless its own code depends on the mode.

    Args:
        network: Network to trace; its state is restored.
        spanning: Names of the modules that are traced; all others are called unchanged.
        image_shape: Channels, height and width of the images, for which the graphs are valid.

    Attributes:
        training: Graph in training.
        evaluation: Graph in evaluation.
        keys: Keys of the nodes of both graphs, equal for equal computations.

    Raises:
        CannotPartitionError: If the network can't be traced.
    """

    def __init__(self, network: nn.Module, spanning: Collection[str], image_shape: Sequence[int]) -> None:
        self._network = network
        self._image_shape = image_shape
        self._batches = set[fx.Node]()
        self._dependent: dict[fx.Node, bool] = {}
        self._constants: list[Tensor] = []
        self.training, self.evaluation = (self._trace(spanning, mode) for mode in (True, False))
        training, evaluation = self._keys(self.training), self._keys(self.evaluation)
        self.keys = {**training, **evaluation}
        self._in_both = set(training.values()) & set(evaluation.values())

    @property
    def differ(self) -> bool:
        """Return whether the network's own code differs between training and evaluation."""
        return any(key not in self._in_both for key in self.keys.values())

    def is_of_one_mode(self, node: fx.Node) -> bool:
        """Return whether a node has no equal in the other graph."""
        return node.op != "get_attr" and self.keys[node] not in self._in_both

    def is_batch(self, node: fx.Node) -> bool:
        """Return whether a node is the number of images."""
        return node in self._batches

    def depends_on_images(self, node: fx.Node) -> bool:
        """Return whether a node depends on the images, not only on their number."""
        found = self._dependent.get(node)
        if found is None:
            is_input = node.op == "placeholder"
            found = not self.is_batch(node) and (is_input or any(map(self.depends_on_images, node.all_input_nodes)))
            self._dependent[node] = found
        return found

    def build(self, graph: fx.Graph) -> fx.GraphModule:
        """Return a module that runs a graph on the network's own modules."""
        with self._constants_set():
            return fx.GraphModule(self._network, graph)

    def _trace(self, spanning: Collection[str], mode: bool) -> fx.Graph:
        """Return the graph in a mode, and remove the constants that the tracer stores on the network.

        Equal constants have one name in both graphs, and the same name in each process.
        """
        before = set(vars(self._network))
        try:
            with _modes_set(self._network, spanning, mode):
                tracer = _Tracer(spanning, self._image_shape)
                graph = tracer.trace(self._network, concrete_args=_defaults(self._network))
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CannotPartitionError(f"it can't be traced ({reason})") from None
        finally:
            constants = {name: vars(self._network).pop(name) for name in set(vars(self._network)) - before}
        if tracer.batch is not None:
            self._batches.add(tracer.batch)
        for node in graph.nodes:
            if node.op == "get_attr" and node.target in constants:
                node.target = self._constant_name(constants[node.target])
        return graph

    def _constant_name(self, constant: Tensor) -> str:
        same = (number for number, each in enumerate(self._constants) if _is_same(each, constant))
        number = next(same, len(self._constants))
        if number == len(self._constants):
            self._constants.append(constant)
        return f"{_CONSTANT}{number}"

    @contextmanager
    def _constants_set(self) -> Iterator[None]:
        """Set the constants on the network while a module is built, which copies them."""
        constants = {f"{_CONSTANT}{number}": value for number, value in enumerate(self._constants)}
        vars(self._network).update(constants)
        try:
            yield
        finally:
            for name in constants:
                del vars(self._network)[name]

    @staticmethod
    def _keys(graph: fx.Graph) -> dict[fx.Node, str]:
        """Return a hash of the computation of each node, independent of the names of nodes."""
        keys: dict[fx.Node, str] = {}
        for node in graph.nodes:
            arguments = fx.node.map_arg((node.args, node.kwargs), lambda used: keys[used])
            position = len(keys) if node.op == "placeholder" else ""
            text = f"{node.op} {position} {node.target} {arguments}"
            keys[node] = blake2b(text.encode(), digest_size=16).hexdigest()
        return keys


def _filled_in(argument: Any, known: Mapping[fx.Node, Any]) -> Any:
    """Return an argument of a call with the values of its nodes, in mutable lists and dicts."""
    match argument:
        case fx.Node():
            return known[argument]
        case tuple():
            return tuple(_filled_in(each, known) for each in argument)
        case list():
            return [_filled_in(each, known) for each in argument]
        case dict():
            return {key: _filled_in(each, known) for key, each in argument.items()}
        case slice():
            return slice(*(_filled_in(each, known) for each in (argument.start, argument.stop, argument.step)))
        case _:
            return argument


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str | torch.dtype)


def _is_same(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    return a is b or a.is_meta or torch.equal(a, b)


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Return the default values of a network's arguments other than the images."""
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    return {each.name: each.default for each in parameters if each.default is not each.empty}


@contextmanager
def _modes_set(network: nn.Module, names: Collection[str], mode: bool) -> Iterator[None]:
    modules = [network.get_submodule(name) for name in names]
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = mode
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
