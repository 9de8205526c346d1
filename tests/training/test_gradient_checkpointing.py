"""Gradient checkpointing: the same results and gradients to the bit, norms that count once, and less kept."""

import pytest
import torch
from torch import Tensor

from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.training.gradient_checkpointing import recompute_blocks

NETWORKS = {"tiny": 64, "resnet18": 64, "mobilenet_v2": 64, "vit_b_16": 32, "convnext_tiny": 64, "swin_t": 64}


def built(name: str) -> Classifier:
    torch.manual_seed(0)
    classifier = build_classifier(name, classes=("a", "b"), weights=None, image_size=NETWORKS[name])
    classifier.network.train()
    return classifier


def step(classifier: Classifier) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], int]:
    """Return logits, gradients, the state after a step, and how many bytes were kept for the gradient."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    size = classifier.preprocessing.crop_px
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in classifier.network.parameters()}
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = classifier.network(images)
    logits.square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in classifier.network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    bytes_kept = sum(nbytes for pointer, nbytes in kept.items() if pointer not in parameters)
    return logits.detach(), gradients, classifier.network.state_dict(), bytes_kept  # type: ignore[return-value]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_the_same_and_keeps_less(name: str) -> None:
    plain, recomputed = built(name), built(name)
    keys = list(recomputed.network.state_dict())
    assert recompute_blocks(recomputed) > 2
    assert list(recomputed.network.state_dict()) == keys
    logits, gradients, state, kept = step(plain)
    again, their_gradients, their_state, their_kept = step(recomputed)
    assert torch.equal(logits, again)
    assert all(torch.equal(gradients[key], their_gradients[key]) for key in gradients)
    assert all(torch.equal(state[key], their_state[key]) for key in state), "norms have counted the batch once"
    assert their_kept < 0.6 * kept


def test_without_gradients_nothing_is_different() -> None:
    classifier = built("tiny")
    images = torch.randn(2, 3, 64, 64)
    classifier.network.eval()
    with torch.no_grad():
        before = classifier.network(images)
        recompute_blocks(classifier)
        assert torch.equal(classifier.network(images), before)
