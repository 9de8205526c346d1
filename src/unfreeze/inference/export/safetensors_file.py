"""safetensors files: weights under the names of torchvision's or timm's module."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from unfreeze.inference.export.stock import Stock
from unfreeze.models.classifier import Classifier, rebuild_classifier
from unfreeze.models.state_dicts import load_state


def write_safetensors(classifier: Classifier, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights and buffers.

    Args:
        classifier: Classifier of the network.
        file: Path of the file.
        metadata: Metadata for the header.
    """
    # Contiguous copies: the format supports neither memory formats nor tensors with shared storage.
    state = classifier.network.state_dict()
    tensors = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    # Not save_file, which makes files that only their owner may read.
    file.write_bytes(save(tensors, {"format": "pt", **metadata}))


def open_safetensors(file: Path, classifier: Classifier, stock: Stock | None) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs a file's weights in the stock network if it takes all, else in the run's own."""
    state = load_file(file)
    if stock is not None and stock.takes_head:
        load_state(stock.network, state)
        network = stock.network.eval()
    else:
        network = rebuild_classifier(classifier.to_record(), state, trust_repo=True).network

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return classifier.outputs.split(network(images))

    return run
