"""Files of torch.export: a graph that runs without the code it was made from."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze.inference.export.graph import Signature
from unfreeze.inference.export.tracing import traceable

METADATA = "metadata.json"
"""The name of the extra file that says what the graph is."""


def write_torch(graph: nn.Module, signature: Signature, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph, for batches of any size.

    Args:
        graph: In eval mode.
        signature: Of it.
        file: To write.
        metadata: What the file says of itself, plain values.

    Raises:
        UnfreezeError: If the network's code can't be followed.
    """
    with traceable():
        program = torch.export.export(graph, (signature.example(),), dynamic_shapes=(signature.dynamic_shape,))
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})


def open_torch(file: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what runs a file."""
    module = torch.export.load(file).module()

    def answer(images: Tensor) -> tuple[Tensor, ...]:
        answered = module(images)
        return answered if isinstance(answered, tuple) else (answered,)

    return answer
