"""Networks of timm by name, with the weights, layer groups and heads of timm itself."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from unfreeze.errors import UnfreezeError, first_line, suggest
from unfreeze.models.architecture import Architecture
from unfreeze.models.heads import replace_head
from unfreeze.models.parts import Part, maximal_modules
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import WeightsReport, read_file

_MOST_PARTS = 7
"""Largest number of parts of a backbone; finer groups of timm are joined to an embedding and four quarters."""

_INTERPOLATIONS = ("bilinear", "bicubic")


class TimmModel(Architecture):
    """A network of timm.

    Args:
        spec: Specification of the network; its name may end in a dot and a tag of its weights.
        config: Pretrained configuration of timm.
    """

    def __init__(self, spec: ModelSpec, config: dict[str, Any]) -> None:
        published = config.get("hf_hub_id") or config.get("url") or config.get("file")
        super().__init__(spec, [config.get("tag") or "DEFAULT"] if published else [])
        self._config = config

    def preprocessing(self, weights: str | None = None) -> Preprocessing:
        """Return the input transform of timm's data configuration, without its padding."""
        from timm.data.config import resolve_data_config

        data = resolve_data_config(pretrained_cfg=self._config)  # type: ignore[no-untyped-call]
        size = int(data["input_size"][-1])
        return Preprocessing(
            resize_px=math.floor(size / data["crop_pct"]),
            crop_px=size,
            interpolation=data["interpolation"] if data["interpolation"] in _INTERPOLATIONS else "bicubic",
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
            squash=data["crop_mode"] == "squash",
        ).for_channels(self.spec.in_chans)

    def build(self, image_size: int | None = None, *, dropout: float | None = None) -> nn.Module:
        """Return timm's module with random weights."""
        return self._create(image_size, drop_rate=dropout)

    def pretrained(
        self, weights: str, image_size: int | None = None, *, dropout: float | None = None
    ) -> tuple[nn.Module, WeightsReport]:
        """Return timm's module with weights; timm itself adapts position embeddings, channels and old names."""
        found = find_weights(weights, names=self.weight_names, title=self.name)
        if isinstance(found, Path):
            return self._from_file(found, image_size, dropout)
        network = self._downloaded(image_size, drop_rate=dropout)
        return network, WeightsReport(matched=len(network.state_dict()), old_head=(), unexpected=())

    def published(self, file: Path | None = None) -> tuple[nn.Module, tuple[str, ...]]:
        """Return timm's module with its default weights, and the ImageNet classes of its head."""
        from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset(self._config)
        if not self.weight_names or subset is None:
            return super().published(file)
        network = self._downloaded(None) if file is None else self._from_file(file, None, None, with_head=True)[0]
        return network, tuple(ImageNetInfo(subset).label_descriptions())

    def find_heads(self, network: nn.Module) -> tuple[str, ...]:
        """Return the names of timm's classifier: one module, or several whose logits are averaged."""
        classifier = network.get_classifier()  # type: ignore[operator]
        heads = list(classifier) if isinstance(classifier, tuple | list | nn.ModuleList) else [classifier]
        names = {id(module): name for name, module in network.named_modules()}
        found = tuple(names[id(head)] for head in heads if head is not None and any(True for _ in head.parameters()))
        return found or super().find_heads(network)

    def replace_heads(self, network: nn.Module, *, num_classes: int, head: HeadSpec | None = None) -> tuple[str, ...]:
        """Reset timm's classifier, and replace its linear layers for other kinds of heads."""
        head = head or HeadSpec()
        network.reset_classifier(num_classes)  # type: ignore[operator]
        names = self.find_heads(network)
        if head.name != "linear" or head.tasks:
            linear = [name for name in names if isinstance(network.get_submodule(name), nn.Linear)]
            if len(linear) < len(names):
                typed = "multitask" if head.tasks else head.name
                raise UnfreezeError(f"head={typed}: the head of {self.name} is not a linear layer; type head=linear")
            for name in linear:
                replace_head(network, name, num_classes=num_classes, head=replace(head, dropout=None))
        return names

    def parts(self, network: nn.Module, heads: Sequence[str]) -> list[Part]:
        """Return timm's own groups, coarse, from the input to just before the heads."""
        from timm.models import group_parameters

        try:
            grouped = group_parameters(network, network.group_matcher(coarse=True))  # type: ignore[operator]
        except (AttributeError, AssertionError):  # some networks have no groups, or no coarse ones
            return super().parts(network, heads)
        of_heads = tuple(f"{head}." for head in heads)
        parts = [[key for key in grouped[number] if not key.startswith(of_heads)] for number in sorted(grouped)]
        joined = _join([part for part in parts if part])
        names = ["stem", *(f"stage{number}" for number in range(1, len(joined)))]
        return list(zip(names, maximal_modules(network, joined), strict=True))

    def _downloaded(self, image_size: int | None, **options: Any) -> nn.Module:
        try:
            return self._create(image_size, pretrained=True, **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise UnfreezeError(
                f"model.weights: the weights of {self.name} could not be downloaded ({first_line(error)}). Let timm "
                "download them where there is a network, or type model.weights=path/to/file (--weights path/to/file "
                "with unfreeze predict) or model.weights=null"
            ) from None

    def _create(self, image_size: int | None, **options: Any) -> nn.Module:
        from timm import create_model

        options = {**dict(self.spec.options), "in_chans": self.spec.in_chans, **options}
        own_size = int(self._config["input_size"][-1])
        if image_size in (None, own_size):
            return _created(create_model(self.name, **options))
        try:
            return _created(create_model(self.name, img_size=image_size, **options))
        except TypeError:  # without position embeddings any size works
            return _created(create_model(self.name, **options))

    def _from_file(
        self, path: Path, image_size: int | None, dropout: float | None, *, with_head: bool = False
    ) -> tuple[nn.Module, WeightsReport]:
        stock = self._create(None)
        state = read_file(path, wanted=stock.state_dict())
        heads = self.find_heads(stock)
        of_heads = tuple(f"{head}." for head in heads)
        old_head = tuple(key for key in state if key.startswith(of_heads))
        backbone = {key: value for key, value in state.items() if key not in old_head}
        own = {key: value for key, value in stock.state_dict().items() if key.startswith(of_heads)}
        overlay = {
            "state_dict": state if with_head else {**backbone, **own},
            "num_classes": stock.num_classes,
            "label_offset": 0,
        }
        try:
            network = self._create(image_size, pretrained=True, drop_rate=dropout, pretrained_cfg_overlay=overlay)
        except RuntimeError as error:
            reason = "; ".join(line.strip() for line in str(error).splitlines()[1:4]) or first_line(error)
            raise UnfreezeError(
                f"model.weights: {path} does not fit the backbone of {self.name}: {reason[:400]}. "
                "Type the model.name that it was saved from"
            ) from None
        return network, WeightsReport(matched=len(backbone), old_head=old_head, unexpected=())


def find_timm_model(spec: ModelSpec) -> TimmModel:
    """Return a network of timm.

    Raises:
        UnfreezeError: If timm is not installed, or has no such network, with the nearest names.
    """
    try:
        import timm
    except ImportError:
        raise UnfreezeError("model: timm is not installed; type pip install 'unfreeze[timm]'") from None
    name = spec.name
    if not timm.is_model(name):
        near = suggest(name, timm.list_models(pretrained="." in name) or timm.list_models())
        raise UnfreezeError(f"model.name: no network {name!r} in timm; near: {near}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UnfreezeError(f"model.name: timm has no weights {name!r}; want one of {suggest(name, tags)}") from None
    if config is None:
        return TimmModel(spec, {"input_size": (3, 224, 224)})
    return TimmModel(spec, config.to_dict())  # type: ignore[no-untyped-call]


def _created(network: nn.Module) -> nn.Module:
    if not hasattr(network, "reset_classifier"):
        raise UnfreezeError(f"model.name: timm's {type(network).__name__} is not a classifier")
    return network


def _join(parts: list[list[str]]) -> list[list[str]]:
    """Return the parts, or if they are too many, the first one and the quarters of the others."""
    if len(parts) <= _MOST_PARTS:
        return parts
    first, rest = parts[0], parts[1:]
    size = -(-len(rest) // 4)
    quarters = [rest[start : start + size] for start in range(0, len(rest), size)]
    return [first, *([key for part in quarter for key in part] for quarter in quarters)]
