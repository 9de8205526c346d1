"""Files of weights alone, by the names that torchvision's or timm's module has for them."""

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
        classifier: Whose network it is.
        file: To write.
        metadata: What its header says, by key.
    """
    # Contiguous, and each its own: the format knows neither memory layouts nor tensors that share their memory.
    state = classifier.network.state_dict()
    whole = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    # Written here, as save_file makes files that nobody else may read.
    file.write_bytes(save(whole, {"format": "pt", **metadata}))


def open_safetensors(file: Path, classifier: Classifier, stock: Stock | None) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the network with a file's weights: the stock one where it takes all of them, else the run's own."""
    state = load_file(file)
    if stock is not None and stock.takes_head:
        load_state(stock.network, state)
        network = stock.network.eval()
    else:
        network = rebuild_classifier(classifier.to_record(), state, trust_repo=True).network

    def answer(images: Tensor) -> tuple[Tensor, ...]:
        return classifier.outputs.split(network(images))

    return answer
