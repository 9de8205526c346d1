"""Networks that can be built by name, independent of their library."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from unfreeze.errors import UnfreezeError
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.meta import move_to_meta
from unfreeze.models.parts import Part, backbone_parts
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import WeightsReport


class Architecture(ABC):
    """A network before it is built.

    Args:
        spec: Specification of the network.
        weight_names: Names of the published weights, the default first; empty if there are none.
    """

    def __init__(self, spec: ModelSpec, weight_names: Sequence[str]) -> None:
        self.spec = spec
        self.weight_names = tuple(weight_names)

    @property
    def name(self) -> str:
        """Name of the network in its library."""
        return self.spec.name

    @abstractmethod
    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of published weights, or else of the default ones."""

    @abstractmethod
    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return the stock module with random weights and its own head, without auxiliary heads.

        Args:
            image_size: Image size in pixels, for networks with position embeddings; None for that of the network.
            dropout: Dropout before the head, for networks that are built with it; `replace_heads` sets it in others.
        """

    @abstractmethod
    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return the stock module with pretrained weights in all but its head, and a report on their entries.

        Args:
            weights: Published name, "DEFAULT", or a file.
            image_size: See `build`.
            dropout: See `build`.

        Raises:
            UnfreezeError: If the weights can't be read or downloaded, or do not fit.
        """

    def published(self, file: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
        """Return the stock module with its default weights, head included, and the names of its classes.

        Args:
            file: File of these weights; None to read them from a cache, or to download them.

        Raises:
            UnfreezeError: If the weights can't be read or downloaded, or the classes are unknown.
        """
        raise UnfreezeError(f"model.name: the classes of {self.name} with its published head are not known")

    def skeleton(self, image_size: int | None = None) -> nn.Module:
        """Return the stock module on the meta device: names and shapes, no memory."""
        try:
            with torch.device("meta"):
                return self.build(image_size)
        except UnfreezeError:
            raise
        except Exception:
            # Some compute their widths with tensors, which have no values on the meta device, and raise any exception.
            return move_to_meta(self.build(image_size))

    def check_weights(self, weights: str | None) -> None:
        """Refuse weights that are neither published nor a file, without reading them.

        Raises:
            UnfreezeError: If they are neither, with the published names.
        """
        if weights is not None:
            find_weights(weights, names=self.weight_names, title=self.name)

    def find_heads(self, network: nn.Module) -> tuple[str, ...]:
        """Return the qualified names of the modules that output the logits."""
        return (find_head(network),)

    def replace_heads(self, network: nn.Module, *, num_classes: int, head: HeadSpec | None = None) -> tuple[str, ...]:
        """Replace the heads with new ones, and return their names."""
        names = self.find_heads(network)
        for name in names:
            replace_head(network, name, num_classes=num_classes, head=head)
        return names

    def parts(self, network: nn.Module, heads: Sequence[str]) -> list[Part]:
        """Return the parts of a backbone from the input to just before the heads."""
        return backbone_parts(network, heads[0])


def find_architecture(model: str | ModelSpec) -> Architecture:
    """Return a network by name.

    Args:
        model: Specification, name of a classifier of torchvision, or "tiny".

    Raises:
        UnfreezeError: If there is no such network, with the nearest names.
    """
    spec = ModelSpec(model) if isinstance(model, str) else model
    match spec.source:
        case "torchvision":
            from unfreeze.models.torchvision_models import find_torchvision_model

            return find_torchvision_model(spec)
        case "timm":
            from unfreeze.models.timm_models import find_timm_model

            return find_timm_model(spec)
        case "hub":
            from unfreeze.models.hub_models import find_hub_model

            return find_hub_model(spec)
