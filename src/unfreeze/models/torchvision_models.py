"""Classifiers of torchvision by name, and the small bundled network."""

import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms.functional import InterpolationMode

from unfreeze.assets import TINY_ARCHITECTURE, TINY_PREPROCESSING, TINY_WEIGHTS
from unfreeze.errors import UnfreezeError, first_line, suggest
from unfreeze.models.architecture import Architecture
from unfreeze.models.channels import PRETRAINED, adapt_state, find_first_convolution, replace_first_convolution
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import ModelSpec
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import WeightsReport, load_backbone, load_heads, read_file
from unfreeze.system.files import strange_content

_AUXILIARY = ("AuxLogits", "aux1", "aux2")


class TorchvisionModel(Architecture):
    """A classifier of `torchvision.models`.

    Args:
        spec: Specification of the network.
        published: Published weights, the default first.
    """

    def __init__(self, spec: ModelSpec, published: tuple[WeightsEnum, ...]) -> None:
        super().__init__(spec, [weights.name for weights in published])
        self._published = {weights.name: weights for weights in published}

    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of published weights, or else of the default ones."""
        chosen = self._published.get(weights or "", next(iter(self._published.values())))
        return _classification_preset(chosen).for_channels(self.spec.in_chans)

    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return the stock module with random weights and without auxiliary heads."""
        options = dict(self.spec.options)
        if self.builder in ("inception_v3", "googlenet"):
            options |= {"init_weights": False, "aux_logits": True, "transform_input": False}
        network: nn.Module = tv.get_model(self.builder, weights=None, **options, **self.size_options(image_size))
        if getattr(network, "aux_logits", False):
            network.aux_logits = False  # type: ignore[assignment]
            for name in _AUXILIARY:
                if hasattr(network, name):
                    setattr(network, name, None)
        replace_first_convolution(network, self.spec.in_chans)
        return network

    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return the stock module with weights in all but its head, adapted to the image size and channels."""
        found = find_weights(weights, names=self.weight_names, title=self.name)
        network = self.build(image_size)
        state = read_file(found, wanted=network.state_dict()) if isinstance(found, Path) else self._read(found)
        if isinstance(network, tv.VisionTransformer) and "encoder.pos_embedding" in state:
            state = interpolate_embeddings(network.image_size, network.patch_size, dict(state))
        if self.spec.in_chans != PRETRAINED:
            first = find_first_convolution(TorchvisionModel.skeleton_of(self.builder))
            state = adapt_state(state, first, self.spec.in_chans)
        return network, load_backbone(network, state, heads=self.find_heads(network), source=weights)

    def published(self, file: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
        """Return the stock module with its default weights and their categories."""
        if not self._published:
            return super().published(file)
        name, weights = next(iter(self._published.items()))
        network = self.build()
        state = self._read(name) if file is None else read_file(file, wanted=network.state_dict())
        heads, source = self.find_heads(network), name if file is None else str(file)
        load_backbone(network, state, heads=heads, source=source)
        load_heads(network, state, heads=heads, source=source)
        return network, tuple(weights.meta["categories"])

    @property
    def builder(self) -> str:
        """Name of the network in torchvision."""
        return self.name

    @staticmethod
    @cache
    def skeleton_of(name: str) -> nn.Module:
        """Return a stock module for three channels, on the meta device."""
        return find_torchvision_model(ModelSpec(name)).skeleton()

    def _read(self, name: str) -> Mapping[str, Tensor]:
        """Return a published state_dict, from torch's cache or a download."""
        weights = self._published[name]
        url = weights.url
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        try:
            state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
            return state
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            if isinstance(error, OSError) and not cached.is_file():
                reason = getattr(error, "reason", None) or error
                raise UnfreezeError(
                    f"model.weights: {weights} of {self.name} could not be downloaded from {url} ({reason}). "
                    f"Put the file at {cached}, or type model.weights=path/to/file.pth (--weights path/to/file.pth "
                    "with unfreeze predict), model.weights=null or model=tiny"
                ) from None
            content = strange_content(cached) if cached.is_file() else None
            raise UnfreezeError(
                f"model.weights: the file from {url} is not {weights} ({content or first_line(error)}); "
                f"delete {cached} if it exists and try again"
            ) from None

    def size_options(self, image_size: int | None) -> dict[str, Any]:
        """Return the constructor arguments for an image size, for networks that are built for one."""
        if image_size is None:
            return {}
        if self.builder.startswith("vit_"):
            return {"image_size": image_size}
        return {"input_size": (image_size, image_size)} if self.builder == "maxvit_t" else {}


class TinyModel(TorchvisionModel):
    """The bundled network.

    Args:
        spec: Specification with the name "tiny".
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, ())
        self.weight_names = ("DEFAULT",)

    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of the bundled weights."""
        return Preprocessing.from_dict(TINY_PREPROCESSING).for_channels(self.spec.in_chans)

    @property
    def builder(self) -> str:
        """Name of the network in torchvision."""
        return TINY_ARCHITECTURE

    def _read(self, name: str) -> Mapping[str, Tensor]:
        return read_file(TINY_WEIGHTS, wanted=self.skeleton().state_dict())


def find_torchvision_model(spec: ModelSpec) -> TorchvisionModel:
    """Return a classifier of torchvision, or the bundled one.

    Raises:
        UnfreezeError: If there is no such network, with the nearest names.
    """
    if spec.name == "tiny":
        return TinyModel(spec)
    if spec.name not in classifier_names():
        raise UnfreezeError(
            f"model.name: no classifier {spec.name!r} in torchvision; near: {suggest(spec.name, classifier_names())}"
        )
    enum = tv.get_model_weights(spec.name)
    return TorchvisionModel(spec, tuple(sorted(enum, key=lambda weights: weights != enum.DEFAULT)))


def classifier_names() -> list[str]:
    """Return the names of torchvision's image classifiers, without the quantised ones."""
    names: list[str] = tv.list_models(module=tv)
    return names


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
