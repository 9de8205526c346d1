"""What an answer rests on: Grad-CAM (Selvaraju et al. 2017) by Captum, for convolutional and transformer backbones."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

_FINE_ENOUGH = 3
_COARSEST = 2


@dataclass(frozen=True)
class _Layout:
    """How a layer's output lies: as maps (N, C, h, w), maps with channels last, or tokens after some others."""

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
    """Return what the logits of some classes rest on, per image from 0 to 1.

    Args:
        network: In eval mode.
        images: Preprocessed, float32, shape (N, C, H, W), N >= 1, on the network's device.
        targets: The logit of each image that is asked about, int64, shape (N,).

    Returns:
        Shape (N, h, w), as fine as the last layer that has places at all; None where no layer has.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        images = images.clone().requires_grad_()
        targets = targets.clone()
        found = _last_layer_with_places(network, images[:1], targets[:1])
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
    """Yield a module that a layer's output goes through as maps."""
    maps = nn.Identity()

    def through(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return layout.from_maps(maps(layout.to_maps(output)), output)

    hook = layer.register_forward_hook(through)
    try:
        yield maps
    finally:
        hook.remove()


def _last_layer_with_places(network: nn.Module, image: Tensor, target: Tensor) -> tuple[nn.Module, _Layout] | None:
    """Return the last layer whose output at several places the logit depends on.

    The last norm of a transformer that answers from its class token has tokens of places too, but nothing follows from
    them.
    """
    outputs: list[tuple[nn.Module, Tensor]] = []
    hooks = [module.register_forward_hook(_keeper(outputs)) for module in network.modules()]
    try:
        logits = network(image)
        kept = [(module, output) for module, output in outputs if _layout_of(output, image) is not None]
        sources = [output for _, output in kept]
        gradients = torch.autograd.grad(logits[0, target[0]], sources, allow_unused=True) if kept else ()
    finally:
        for hook in hooks:
            hook.remove()
    usable: list[tuple[nn.Module, _Layout]] = []
    for (module, output), gradient in zip(kept, gradients, strict=True):
        layout = _layout_of(output, image)
        if gradient is None or layout is None or (layout.kind == "tokens" and isinstance(module, nn.Linear)):
            continue  # what attention makes of tokens has other channels than the tokens
        if layout.to_maps(gradient).any():
            usable.append((module, layout))
    for side in (_FINE_ENOUGH, _COARSEST):
        fine = [each for each in usable if min(each[1].height, each[1].width) >= side]
        if fine:
            return fine[-1]
    return None


def _keeper(
    outputs: list[tuple[nn.Module, Tensor]],
) -> Callable[[nn.Module, tuple[Tensor, ...], object], Tensor | None]:
    def keep(module: nn.Module, _: tuple[Tensor, ...], output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            return None
        # A view of it: what follows may write into the output, and the gradient of what was is asked for.
        mine = output.clone()
        outputs.append((module, mine))
        return mine

    return keep


def _layout_of(output: Tensor, image: Tensor) -> _Layout | None:
    """Return how an output of one image lies; None where it has no places."""
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
