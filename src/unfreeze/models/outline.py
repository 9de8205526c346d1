"""Outlines of networks, without weights: from the catalogue, or from the network on the meta device."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from unfreeze.assets import ARCHITECTURES
from unfreeze.errors import UnfreezeError, suggest
from unfreeze.models.catalog import network_names
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.weight_names import find_weights

_VALUE_BYTES = 4
"""Bytes of an activation in float32."""


class Growth(NamedTuple):
    """Number of activations per image at a boundary, as a function of the image size.

    Args:
        area: Activations per position of the feature map.
        stride: Stride of the feature map in pixels.
        offset: Pixels that are added to the image size.
        fixed: Activations that do not depend on the image size.
    """

    area: int
    stride: int
    offset: int
    fixed: int

    def at(self, size_px: int) -> int:
        """Return the number of activations for an image size."""
        return int(self.area * ((size_px + self.offset) // self.stride) ** 2 + self.fixed)


@dataclass(frozen=True)
class Edge:
    """The boundary at which a network would be cut below the trainable groups.

    Args:
        name: Name of the boundary, such as "avgpool".
        row_bytes: Bytes of the activations of an image in float32.
        keeps_statistics: Whether norms before the boundary have running statistics.
        share: Share of the multiply-adds before the boundary, in [0, 1]; in the catalogue, for the image size of the
            weights.
    """

    name: str
    row_bytes: int
    keeps_statistics: bool
    share: float


class Outline(ABC):
    """A network without weights and memory."""

    @abstractmethod
    def check_weights(self, weights: str | None) -> None:
        """Refuse weights that are neither published nor a file, without reading them.

        Raises:
            UnfreezeError: If they are neither, with the published names.
        """

    @abstractmethod
    def check_image_size(self, size_px: int) -> None:
        """Refuse an image size that the network does not support.

        Raises:
            UnfreezeError: If it does not, with the next larger size that works.
        """

    @abstractmethod
    def crop_px(self, weights: str | None) -> int:
        """Return the image size of published weights, or else of the default ones."""

    @abstractmethod
    def group_sizes(self, num_classes: int, head: HeadSpec) -> list[tuple[str, int]]:
        """Return the names of the layer groups from the head down, with their numbers of parameters.

        Raises:
            UnfreezeError: If the architecture does not support the head.
        """

    @abstractmethod
    def count_trainable(self, num_classes: int, live: Collection[str], only: Collection[str], head: HeadSpec) -> int:
        """Return the total size of the trainable parameters; 0 if `only` matches none."""

    @abstractmethod
    def find_edge(self, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
        """Return the edge below the trainable groups; None if nothing is frozen or the network can't be cut."""


class CatalogOutline(Outline):
    """Outline from the catalogue, which needs no torch.

    Args:
        spec: Specification of the network, without options.
        record: Line of the catalogue.
    """

    def __init__(self, spec: ModelSpec, record: dict[str, Any]) -> None:
        self._spec = spec
        self._record = record
        self._groups = {
            name: [_parameter(word, record["first"], spec.in_chans) for word in words.split()]
            for name, words in record["groups"].items()
        }

    def check_weights(self, weights: str | None) -> None:
        """Refuse weights that are neither published nor a file."""
        if weights is not None:
            find_weights(weights, names=list(self._record["weights"]), title=self._spec.name)

    def check_image_size(self, size_px: int) -> None:
        """Refuse an image size; if the catalogue does not allow it, the network itself is asked for the reason."""
        low, step = self._record["sizes"] or (None, 1)
        if low is None or size_px < low or size_px % step:
            _dry(self._spec).check_image_size(size_px)

    def crop_px(self, weights: str | None) -> int:
        """Return the image size of published weights, or else of the default ones."""
        return int(self._record["weights"].get(weights or "", self._record["crop"]))

    def group_sizes(self, num_classes: int, head: HeadSpec) -> list[tuple[str, int]]:
        """Return the names of the layer groups from the head down, with their numbers of parameters."""
        below = [(name, sum(each.count for each in group)) for name, group in self._groups.items()]
        return [("head", self._head_size(num_classes, head)), *below]

    def _head_size(self, num_classes: int, head: HeadSpec) -> int:
        own = self._record["head"]
        if not own["is_linear"] and (head.name != "linear" or head.dropout):
            return _dry(self._spec).group_sizes(num_classes, head)[0][1]  # refused there, or dropout of its own
        width, classes = int(own["width"]), sum(head.tasks) or num_classes
        heads = max(1, len(head.tasks))
        hidden = head.hidden or width
        match head.name:
            case "mlp":
                return heads * (width * hidden + hidden) + hidden * classes + classes
            case "cosine":
                return width * classes + heads
        return width * classes + (classes if own["bias"] else 0)

    def count_trainable(self, num_classes: int, live: Collection[str], only: Collection[str], head: HeadSpec) -> int:
        """Return the total size of the trainable parameters; 0 if `only` matches none."""
        chosen = [each.count for name in live for each in self._groups.get(name, ()) if each.matches(only)]
        return sum(chosen) + (self._head_size(num_classes, head) if "head" in live else 0) if chosen else 0

    def find_edge(self, num_classes: int, *, size_px: int, live: tuple[str, ...]) -> Edge | None:
        """Return the edge below the trainable groups; None if nothing is frozen or the network can't be cut."""
        edges = self._record["edges"]
        deepest = [name for name in ("head", *self._groups) if name in live][-1]
        if edges.get(deepest) is None:
            return None
        name, keeps, area, stride, offset, fixed, share = edges[deepest]
        return Edge(name, _VALUE_BYTES * Growth(area, stride, offset, fixed).at(size_px), keeps, share)


@dataclass(frozen=True)
class _Parameter:
    key: str
    count: int
    is_norm: bool

    def matches(self, only: Collection[str]) -> bool:
        """Return whether `only` selects the parameter, as in `models.groups.choose_parameters`."""
        name = self.key.rpartition(".")[2]
        is_bias = name == "bias" or name.endswith("_bias")
        kinds = {"norms": self.is_norm, "biases": is_bias}
        return any(kinds[each] if each in kinds else re.fullmatch(each, self.key) is not None for each in only)


def _parameter(word: str, first: str, in_chans: int) -> _Parameter:
    key, _, number = word.rpartition(":")
    count = int(number.removesuffix("n"))
    return _Parameter(key, count * in_chans // 3 if key == first else count, number.endswith("n"))


def find_outline(spec: ModelSpec) -> Outline:
    """Return the outline of a network, from the catalogue if possible.

    Raises:
        UnfreezeError: If there is no network of that name, with the nearest names.
    """
    return find_in_catalog(spec) or _dry(spec)


def find_in_catalog(spec: ModelSpec) -> CatalogOutline | None:
    """Return the outline of a network from the catalogue; None if it has only its name, or nothing.

    Raises:
        UnfreezeError: If the catalogue is complete for the installed library, and has no network of that name.
    """
    if spec.source == "hub" or not _is_of(spec.source):
        return None
    if spec.source == "timm":
        if spec.name.partition(".")[0] not in (names := network_names("timm")):
            raise UnfreezeError(f"model.name: no network {spec.name!r} in timm; near: {suggest(spec.name, names)}")
        return None
    record = _record_of(spec.name)
    if record is None:
        near = suggest(spec.name, network_names("torchvision"))
        raise UnfreezeError(f"model.name: no classifier {spec.name!r} in torchvision; near: {near}")
    return None if spec.options else CatalogOutline(spec, record)


def _is_of(library: str) -> bool:
    """Return whether the installed version of a library is that of the catalogue."""
    with ARCHITECTURES.open(encoding="utf-8") as file:
        known = json.loads(file.readline())
    try:
        return bool(version(library).partition("+")[0] == known[library])
    except PackageNotFoundError:
        return False


@lru_cache(maxsize=8)
def _record_of(name: str) -> dict[str, Any] | None:
    start = f'{{"name":{json.dumps(name)},'
    with ARCHITECTURES.open(encoding="utf-8") as file:
        return next((json.loads(line) for line in file if line.startswith(start)), None)


def _dry(spec: ModelSpec) -> Outline:
    from unfreeze.models.analysis import DryOutline

    return DryOutline(spec)
