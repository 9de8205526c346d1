"""Extraction of features from any layer of a classifier."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unfreeze.errors import UnfreezeError, suggest
from unfreeze.models.classifier import Classifier
from unfreeze.models.heads import head_inputs

Pool = Literal["avg", "none"]
POOLS: tuple[Pool, ...] = ("avg", "none")


class FeatureExtractor:
    """Extracts the output of one layer of a classifier, in float32.

    Args:
        classifier: In eval mode.
        layer: The name of a layer group, for the output of the group's last module; the qualified name of a module, for
            the output of its last call; None for the input of the head.
        pool: "avg" for a vector per image, the mean over positions; "none" for all positions.

    Raises:
        UnfreezeError: If there is no such layer; the message lists the layer groups.
    """

    def __init__(self, classifier: Classifier, layer: str | None = None, *, pool: Pool = "avg") -> None:
        self._classifier = classifier
        self._layer = layer
        self._pool = pool
        self._module: str | None = None
        if pool not in POOLS:
            raise UnfreezeError(f"pool: got {pool!r}, want one of {', '.join(POOLS)}")
        if layer is not None:
            self._candidates = _candidates(classifier, layer)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features of preprocessed images, on their device, shape (N, D) or, unpooled, that of the layer."""
        with torch.autocast(images.device.type, enabled=False):
            if self._layer is None:
                with head_inputs(self._classifier) as inputs:
                    self._classifier.network(images)
                return inputs[0].float()
            if self._module is None:
                self._module = self._last_called(images[:1])
            return self._extract(self._module, images).float()

    def _extract(self, name: str, images: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def store(_: nn.Module, __: Any, out: Any) -> None:
            # A copy, made at once: later modules may write into the output in place.
            outputs[:] = [_pooled(_only_tensor(out, name), self._pool)]

        hook = self._classifier.network.get_submodule(name).register_forward_hook(store)
        try:
            self._classifier.network(images)
        finally:
            hook.remove()
        return outputs[0]

    def _last_called(self, images: Tensor) -> str:
        network, called = self._classifier.network, list[str]()
        hooks = [
            network.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
            for name in self._candidates
        ]
        try:
            network(images)
        finally:
            for hook in hooks:
                hook.remove()
        if not called:
            raise UnfreezeError(f"layer: {self._layer!r} of {self._classifier.architecture} is never called by itself")
        return called[-1]


def _candidates(classifier: Classifier, layer: str) -> Sequence[str]:
    for group in classifier.groups:
        if group.name == layer:
            return group.modules
    modules = [name for name, _ in classifier.network.named_modules() if name]
    if layer in modules:
        return [layer]
    groups = " ".join(group.name for group in classifier.groups)
    raise UnfreezeError(
        f"layer: {classifier.architecture} has no {layer!r}; layer groups: {groups}; or a module by its name, such as "
        f"{suggest(layer, modules, limit=3)}"
    )


def _only_tensor(out: Any, name: str) -> Tensor:
    first = out[0] if isinstance(out, tuple | list) and out else out
    if not isinstance(first, Tensor):
        raise UnfreezeError(f"layer: {name!r} outputs {type(first).__name__}, not a tensor; want another one")
    return first


def _pooled(features: Tensor, pool: Pool) -> Tensor:
    if pool == "none" or features.ndim < 3:
        return features.clone()
    if features.ndim == 3:  # tokens
        return features.mean(dim=1)
    sides = features.shape[1:]
    # Images are square: if the last two sides differ, channels are last, as in Swin.
    positions = (1, 2) if len(sides) == 3 and sides[0] == sides[1] != sides[2] else tuple(range(2, features.ndim))
    return features.mean(dim=positions)
