"""Files of torch.export: graphs that run without the network's code."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze.inference.export.graph import Signature
from unfreeze.inference.export.tracing import traceable

METADATA = "metadata.json"
"""Name of the extra file with the metadata."""


def write_torch(graph: nn.Module, signature: Signature, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph for batches of any size.

    Args:
        graph: In eval mode.
        signature: Its inputs and outputs.
        file: Path of the file.
        metadata: Metadata of the file, plain values.

    Raises:
        UnfreezeError: If torch.export can't trace the network.
    """
    with traceable():
        program = torch.export.export(graph, (signature.example(),), dynamic_shapes=(signature.dynamic_shape,))
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})


def open_torch(file: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs a file."""
    module = torch.export.load(file).module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs = module(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run
