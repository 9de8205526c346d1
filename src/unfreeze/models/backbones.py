"""Backbones by name: torchvision's classifiers, and the small one that this package carries."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision import models as tv
from torchvision.models import WeightsEnum
from torchvision.transforms.functional import InterpolationMode

from unfreeze.assets import TINY_ARCHITECTURE, TINY_PREPROCESSING
from unfreeze.errors import UnfreezeError, suggest
from unfreeze.models.preprocessing import Preprocessing

_SMALLEST_PX = {"inception_v3": 75, "alexnet": 63}


@dataclass(frozen=True)
class Architecture:
    """A backbone that can be built.

    Args:
        name: What a person types.
        builder: torchvision's name of it.
        weights: torchvision's weights of it, the default first; empty where there are none.
        preprocessing: The input transform of its default weights.
    """

    name: str
    builder: str
    weights: tuple[WeightsEnum, ...]
    preprocessing: Preprocessing

    def build(self, **options: Any) -> nn.Module:
        """Return the stock module with random weights and without auxiliary heads."""
        if self.builder in ("inception_v3", "googlenet"):
            options |= {"init_weights": False, "aux_logits": True, "transform_input": False}
        network: nn.Module = tv.get_model(self.builder, weights=None, **options)
        if getattr(network, "aux_logits", False):
            network.aux_logits = False  # type: ignore[assignment]
            for name in ("AuxLogits", "aux1", "aux2"):
                if hasattr(network, name):
                    setattr(network, name, None)
        return network

    def skeleton(self) -> nn.Module:
        """Return the stock module on the meta device: names and shapes, no memory."""
        if self.builder.startswith("regnet"):
            # Its widths are computed with tensors, which have no values on the meta device.
            return self.build().to("meta")
        with torch.device("meta"):
            return self.build()


def find_architecture(name: str) -> Architecture:
    """Return a backbone by name.

    Raises:
        UnfreezeError: If there is none, with the nearest names.
    """
    if name == "tiny":
        return Architecture(
            name="tiny",
            builder=TINY_ARCHITECTURE,
            weights=(),
            preprocessing=Preprocessing.from_dict(TINY_PREPROCESSING),
        )
    if name not in classifier_names():
        raise UnfreezeError(
            f"model.name: no classifier {name!r} in torchvision; near: {suggest(name, classifier_names())}"
        )
    enum = tv.get_model_weights(name)
    members = sorted(enum, key=lambda weights: weights != enum.DEFAULT)
    preset = _classification_preset(members[0])
    return Architecture(name=name, builder=name, weights=tuple(members), preprocessing=preset)


def classifier_names() -> list[str]:
    """Return the names of torchvision's image classifiers for floating-point weights."""
    names: list[str] = tv.list_models(module=tv)
    return names


def preprocessing_of(weights: WeightsEnum) -> Preprocessing:
    """Return the input transform that torchvision publishes with some weights."""
    return _classification_preset(weights)


def _classification_preset(weights: WeightsEnum) -> Preprocessing:
    preset = weights.transforms()
    interpolation = preset.interpolation
    return Preprocessing(
        resize_px=int(preset.resize_size[0]),
        crop_px=int(preset.crop_size[0]),
        interpolation=interpolation.value if isinstance(interpolation, InterpolationMode) else str(interpolation),
        mean=tuple(float(value) for value in preset.mean),
        std=tuple(float(value) for value in preset.std),
    )
