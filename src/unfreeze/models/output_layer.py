"""Search for the output layer of an unknown network by running it, independent of module names."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unfreeze.errors import first_line

_IMAGES = 2
_TRIED = 8
"""Largest number of layers to try, from the last one called."""

_Layer = nn.Linear | nn.Conv2d


class NoOutputLayerError(Exception):
    """A network whose output is not that of a linear layer or convolution; the message is the reason."""


def find_output_layer(network: nn.Module, *, channels: int, size_px: int) -> str:
    """Return the qualified name of the linear layer or convolution that outputs the logits.

    The network runs on two images in eval and in train mode, and its state is restored. The output layer is the one
    whose output, if widened by one value, widens the output of the network by one.

    Args:
        network: Network on the CPU.
        channels: Number of channels of the images.
        size_px: Side of the images in pixels.

    Raises:
        NoOutputLayerError: If the network does not support such images, or has another output.
    """
    images = torch.zeros(_IMAGES, channels, size_px, size_px)
    with _restored(network):
        network.eval()
        called, output = _record_calls(network, images)
        width = _check_output(output, "eval")
        candidates = [name for name, layer in reversed(called) if _width(layer) == width]
        for name in candidates[:_TRIED]:
            if _widens(network, name, images):
                break
        else:
            raise NoOutputLayerError(f"its {width} outputs per image are not those of a linear layer or convolution")
        _check_output(_train_output(network, images), "train")
    return name


def _record_calls(network: nn.Module, images: Tensor) -> tuple[list[tuple[str, _Layer]], object]:
    """Return the layers in the order of their calls, and the output of the network."""
    called: list[tuple[str, _Layer]] = []
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, _Layer)]
    hooks = [
        layer.register_forward_hook(lambda layer, _, __, name=name: called.append((name, layer)))
        for name, layer in layers
    ]
    try:
        return called, network(images)
    except Exception as error:  # code of a user, which may raise anything
        raise NoOutputLayerError(first_line(error)) from None
    finally:
        for hook in hooks:
            hook.remove()


def _check_output(output: object, mode: str) -> int:
    """Return the number of logits per image, having checked the shape."""
    if not isinstance(output, Tensor):
        raise NoOutputLayerError(f"in {mode} mode it outputs a {type(output).__name__}")
    if output.ndim != 2 or len(output) != _IMAGES:
        raise NoOutputLayerError(
            f"its output for {_IMAGES} images has shape {tuple(output.shape)}, not ({_IMAGES}, classes)"
        )
    return output.shape[1]


def _widens(network: nn.Module, name: str, images: Tensor) -> bool:
    """Return whether one more output of a layer is one more output of the network."""
    layer = network.get_submodule(name)
    assert isinstance(layer, _Layer)
    dim = -1 if isinstance(layer, nn.Linear) else 1
    hook = layer.register_forward_hook(lambda _, __, out: torch.cat([out, out.narrow(dim, 0, 1)], dim=dim))
    try:
        output = network(images)
    except Exception:  # later modules need the original width
        return False
    finally:
        hook.remove()
    return isinstance(output, Tensor) and output.shape == (len(images), _width(layer) + 1)


def _train_output(network: nn.Module, images: Tensor) -> object:
    """Return the output in train mode, and restore the buffers, such as running statistics."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        return network.train()(images)
    except Exception as error:  # code of a user, which may raise anything
        raise NoOutputLayerError(f"in train mode: {first_line(error)}") from None
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


def _width(layer: _Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


@contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Disable gradients in a context, and restore the modes of a network and the random state after it."""
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
