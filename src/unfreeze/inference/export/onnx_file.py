"""ONNX files: export with torch.onnx, inference with onnxruntime."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unfreeze.inference.export.graph import INPUT, Signature
from unfreeze.inference.export.tracing import traceable

_MAX_BYTES = 1_900_000_000
"""Limit of weights in one file: protobuf stores at most 2^31 bytes, including the graph."""


def write_onnx(graph: nn.Module, signature: Signature, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph for batches of any size; weights go to a second file only if they exceed protobuf's limit.

    Args:
        graph: In eval mode.
        signature: Its inputs and outputs.
        file: Path of the file; a second file of weights has `.data` appended to its name.
        metadata: Metadata of the file.

    Raises:
        UnfreezeError: If torch.export can't trace the network.
    """
    with traceable():
        program = torch.onnx.export(
            graph,
            (signature.example(),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(signature.outputs),
            dynamic_shapes=(signature.dynamic_shape,),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    nbytes = sum(parameter.nbytes for parameter in graph.state_dict().values())
    program.save(file, external_data=nbytes > _MAX_BYTES)


def open_onnx(file: Path, signature: Signature) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs a file on the CPU."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no warnings of nodes that the optimiser removes
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, sess_options=options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(list(signature.outputs), {INPUT: images.numpy()})))

    return run
