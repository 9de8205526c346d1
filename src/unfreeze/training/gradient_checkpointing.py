"""Gradient checkpointing: the backward pass recomputes the activations inside a block instead of storing them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from unfreeze.models.classifier import Classifier
from unfreeze.models.norms import BATCH_NORMS


def recompute_blocks(classifier: Classifier) -> int:
    """Have the blocks of a backbone store their inputs alone, and recompute the rest in the backward pass.

    Results and gradients are the same to the bit; norms count each batch once. A block is a child of what makes up a
    layer group, or the whole of it where that has no children in a row. The state_dict stays what it was.

    Args:
        classifier: Changed in place.

    Returns:
        The number of blocks.
    """
    blocks = [block for group in classifier.groups[1:] for block in _blocks(classifier.network, group.modules)]
    for block in blocks:
        norms = [module for module in block.modules() if isinstance(module, BATCH_NORMS)]
        block.forward = partial(_recomputed, block.forward, norms)
    return len(blocks)


def _blocks(network: nn.Module, keys: tuple[str, ...]) -> list[nn.Module]:
    """Return the outermost of some modules that are no rows of others, and have parameters."""
    inside = set(keys)
    outermost = [key for key in keys if key.rpartition(".")[0] not in inside]
    found: list[nn.Module] = []
    for key in outermost:
        module = network.get_submodule(key)
        in_a_row = isinstance(module, nn.Sequential | nn.ModuleList)
        parts = list(module.children()) if in_a_row else [module]
        found += [part for part in parts if sum(1 for _ in part.parameters()) > 1]
    return found


def _recomputed(forward: Any, norms: list[Any], *inputs: Any, **more: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **more)
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _not_counting(norms)), **more
    )


@contextmanager
def _not_counting(norms: list[Any]) -> Iterator[None]:
    """Run a batch through norms again without updating their statistics."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
