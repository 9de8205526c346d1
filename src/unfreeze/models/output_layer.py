"""Which layer of an unknown network gives its answer: found by what the network does, not by names."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unfreeze.errors import first_line

_IMAGES = 2
_TRIED = 8
"""Layers that are tried, the last one called first."""

_Layer = nn.Linear | nn.Conv2d


class NoAnswerError(Exception):
    """A network that does not answer images with the output of one layer; the message is the reason."""


def find_answering_layer(network: nn.Module, *, channels: int, size_px: int) -> str:
    """Return the qualified name of the linear layer or convolution whose outputs are the logits, one for each class.

    The network runs on two images, in eval and in train mode, and is left as it was. A layer is the one if the answer
    is wider where its output is: so will it be as wide as that of a new layer in its place.

    Args:
        network: On the CPU.
        channels: Of the images.
        size_px: Side of the images.

    Raises:
        NoAnswerError: If the network can't take such images, or answers with something else.
    """
    images = torch.zeros(_IMAGES, channels, size_px, size_px)
    with _left_as_it_was(network):
        network.eval()
        called, answer = _calls(network, images)
        width = _checked(answer, "eval")
        fitting = [name for name, layer in reversed(called) if _width(layer) == width]
        for name in fitting[:_TRIED]:
            if _widens(network, name, images):
                break
        else:
            raise NoAnswerError(f"its {width} numbers for an image are not the output of a linear layer or convolution")
        _checked(_train_answer(network, images), "train")
    return name


def _calls(network: nn.Module, images: Tensor) -> tuple[list[tuple[str, _Layer]], object]:
    """Return the layers in the order of their calls, and the answer."""
    called: list[tuple[str, _Layer]] = []
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, _Layer)]
    hooks = [
        layer.register_forward_hook(lambda layer, _, __, name=name: called.append((name, layer)))
        for name, layer in layers
    ]
    try:
        return called, network(images)
    except Exception as error:  # somebody's own code, which may raise anything
        raise NoAnswerError(first_line(error)) from None
    finally:
        for hook in hooks:
            hook.remove()


def _checked(answer: object, mode: str) -> int:
    """Return the number of logits of an image."""
    if not isinstance(answer, Tensor):
        raise NoAnswerError(f"in {mode} mode it answers with a {type(answer).__name__}")
    if answer.ndim != 2 or len(answer) != _IMAGES:
        raise NoAnswerError(f"it answers {_IMAGES} images with shape {tuple(answer.shape)}, not ({_IMAGES}, classes)")
    return answer.shape[1]


def _widens(network: nn.Module, name: str, images: Tensor) -> bool:
    """Return whether the answer has one number more where a layer's output has."""
    layer = network.get_submodule(name)
    assert isinstance(layer, _Layer)
    dim = -1 if isinstance(layer, nn.Linear) else 1
    hook = layer.register_forward_hook(lambda _, __, out: torch.cat([out, out.narrow(dim, 0, 1)], dim=dim))
    try:
        answer = network(images)
    except Exception:  # what comes after the layer wants its output as it is
        return False
    finally:
        hook.remove()
    return isinstance(answer, Tensor) and answer.shape == (len(images), _width(layer) + 1)


def _train_answer(network: nn.Module, images: Tensor) -> object:
    """Return the answer in train mode; what norms count of the images is taken back."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        return network.train()(images)
    except Exception as error:  # somebody's own code, which may raise anything
        raise NoAnswerError(f"in train mode: {first_line(error)}") from None
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


def _width(layer: _Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Let a network run, without gradients, and put back its modes and what randomness it has used."""
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
