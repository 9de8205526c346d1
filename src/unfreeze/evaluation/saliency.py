"""Saliency by Grad-CAM (Selvaraju et al. 2017) with Captum, for convolutional and transformer backbones."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

_PREFERRED_SIDE = 3
_MIN_SIDE = 2


@dataclass(frozen=True)
class _Layout:
    """The layout of a layer's output: maps (N, C, h, w), maps with channels last, or tokens after leading ones."""

    kind: str
    height: int
    width: int
    leading: int = 0

    def to_maps(self, values: Tensor) -> Tensor:
        match self.kind:
            case "maps":
                return values
            case "channels last":
                return values.permute(0, 3, 1, 2)
        tokens = values[:, self.leading :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], self.height, self.width)

    def from_maps(self, maps: Tensor, values: Tensor) -> Tensor:
        match self.kind:
            case "maps":
                return maps
            case "channels last":
                return maps.permute(0, 2, 3, 1)
        return torch.cat([values[:, : self.leading], maps.flatten(2).transpose(1, 2)], dim=1)


def grad_cam(network: nn.Module, images: Tensor, targets: Tensor) -> NDArray[np.float32] | None:
    """Return Grad-CAM maps for the logits of some classes, scaled to [0, 1] per image.

    Args:
        network: In eval mode.
        images: Preprocessed, float32, shape (N, C, H, W), N >= 1, on the network's device.
        targets: The class of each image whose logit is explained, int64, shape (N,).

    Returns:
        Shape (N, h, w), the resolution of the last spatial layer; None if no layer has spatial positions.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        images = images.clone().requires_grad_()
        targets = targets.clone()
        found = _last_spatial_layer(network, images[:1], targets[:1])
        if found is None:
            return None
        layer, layout = found
        with _as_maps(layer, layout) as maps:
            heat = LayerGradCam(network, maps).attribute(images, target=targets, relu_attributions=True)
    assert isinstance(heat, Tensor)
    flat = heat.detach()[:, 0].float().cpu()
    peak = flat.amax(dim=(1, 2), keepdim=True)
    return (flat / peak.clamp(min=1e-12)).numpy()


@contextmanager
def _as_maps(layer: nn.Module, layout: _Layout) -> Iterator[nn.Module]:
    """Yield a module that receives a layer's output as maps."""
    maps = nn.Identity()

    def through(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return layout.from_maps(maps(layout.to_maps(output)), output)

    hook = layer.register_forward_hook(through)
    try:
        yield maps
    finally:
        hook.remove()


def _last_spatial_layer(network: nn.Module, image: Tensor, target: Tensor) -> tuple[nn.Module, _Layout] | None:
    """Return the last layer with spatial positions whose gradient is not zero.

    In a transformer with a class token the last norm also outputs patch tokens, but the logits do not depend on them.
    """
    outputs: list[tuple[nn.Module, Tensor]] = []
    hooks = [module.register_forward_hook(_recorder(outputs)) for module in network.modules()]
    try:
        logits = network(image)
        spatial = [(module, output) for module, output in outputs if _layout_of(output, image) is not None]
        sources = [output for _, output in spatial]
        gradients = torch.autograd.grad(logits[0, target[0]], sources, allow_unused=True) if spatial else ()
    finally:
        for hook in hooks:
            hook.remove()
    usable: list[tuple[nn.Module, _Layout]] = []
    for (module, output), gradient in zip(spatial, gradients, strict=True):
        layout = _layout_of(output, image)
        if gradient is None or layout is None or (layout.kind == "tokens" and isinstance(module, nn.Linear)):
            continue  # projections inside attention have other channels than the tokens
        if layout.to_maps(gradient).any():
            usable.append((module, layout))
    for side in (_PREFERRED_SIDE, _MIN_SIDE):
        fine = [each for each in usable if min(each[1].height, each[1].width) >= side]
        if fine:
            return fine[-1]
    return None


def _recorder(
    outputs: list[tuple[nn.Module, Tensor]],
) -> Callable[[nn.Module, tuple[Tensor, ...], object], Tensor | None]:
    def record(module: nn.Module, _: tuple[Tensor, ...], output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            return None
        # A copy: later modules may write into the output in place, which would invalidate its gradient.
        copy = output.clone()
        outputs.append((module, copy))
        return copy

    return record


def _layout_of(output: Tensor, image: Tensor) -> _Layout | None:
    """Return the layout of the output for one image; None if it has no spatial positions."""
    if output.ndim == 4:
        _, first, second, third = output.shape
        as_input = image.shape[2] / image.shape[3]
        if second / third == as_input and second <= image.shape[2] and (first != second or second == third):
            return _Layout("maps", second, third) if second > 1 else None
        if first / second == as_input and first > 1:
            return _Layout("channels last", first, second)
        return None
    tokens = output.shape[1]
    side = math.isqrt(tokens)
    leading = tokens - side * side
    return _Layout("tokens", side, side, leading) if side > 1 and leading <= 16 else None
