"""A network that can be built by name, wherever it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from unfreeze.errors import UnfreezeError
from unfreeze.models.groups import Part, backbone_parts
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.meta import move_to_meta
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import WeightsReport


class Architecture(ABC):
    """What is known of a network before it is built.

    Args:
        spec: What a person asked for.
        weight_names: Of published weights, the default first; empty where there are none.
    """

    def __init__(self, spec: ModelSpec, weight_names: Sequence[str]) -> None:
        self.spec = spec
        self.weight_names = tuple(weight_names)

    @property
    def name(self) -> str:
        """What its source calls it."""
        return self.spec.name

    @abstractmethod
    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of some published weights; else that of the default ones."""

    @abstractmethod
    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return the stock module with random weights, its own head, and no auxiliary ones.

        Args:
            image_size: Side in px of what it will see, for networks whose positions are counted; None for their own.
            dropout: Before the head, for networks that are built with it; `replace_heads` sees to the others.
        """

    @abstractmethod
    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return the stock module with weights in all but its head, and what became of their entries.

        Args:
            weights: A published name, "DEFAULT", or a file.
            image_size: As for `build`.
            dropout: As for `build`.

        Raises:
            UnfreezeError: If they can't be had, or do not fit.
        """

    def published(self, file: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
        """Return the stock module with its default weights, head included, and the names of its classes.

        Args:
            file: Of these weights; None to take them from a cache, or to download them.

        Raises:
            UnfreezeError: If they can't be had, or are not known.
        """
        raise UnfreezeError(f"model.name: what {self.name} tells apart with its published head is not known")

    def skeleton(self, image_size: int | None = None) -> nn.Module:
        """Return the stock module on the meta device: names and shapes, no memory."""
        try:
            with torch.device("meta"):
                return self.build(image_size)
        except UnfreezeError:
            raise
        except Exception:
            # Some compute their widths with tensors, which have no values on the meta device; each fails in its way.
            return move_to_meta(self.build(image_size))

    def check_weights(self, weights: str | None) -> None:
        """Refuse weights that are neither published nor a file; nothing is read for it.

        Raises:
            UnfreezeError: Naming what there is.
        """
        if weights is not None:
            find_weights(weights, names=self.weight_names, title=self.name)

    def find_heads(self, network: nn.Module) -> tuple[str, ...]:
        """Return the qualified names of the modules that give the logits."""
        return (find_head(network),)

    def replace_heads(self, network: nn.Module, *, num_classes: int, head: HeadSpec | None = None) -> tuple[str, ...]:
        """Put new heads for some classes in the place of the old ones, and return their names."""
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
        model: A spec, or the name of one of torchvision's, or "tiny".

    Raises:
        UnfreezeError: If there is none, with the nearest names.
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
