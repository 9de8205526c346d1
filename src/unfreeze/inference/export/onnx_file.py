"""Files of ONNX: written by torch.onnx, run by onnxruntime."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unfreeze.inference.export.graph import INPUT, Signature
from unfreeze.inference.export.tracing import traceable

_MOST_BYTES = 1_900_000_000
"""Of weights in one file: protobuf holds no more than 2^31 bytes, and the graph is in them too."""


def write_onnx(graph: nn.Module, signature: Signature, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph, for batches of any size; its weights lie beside it only where one file can't hold them.

    Args:
        graph: In eval mode.
        signature: Of it.
        file: To write; weights beside it have `.data` after its name.
        metadata: What the file says of itself, by key.

    Raises:
        UnfreezeError: If the network's code can't be followed.
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
    program.save(file, external_data=nbytes > _MOST_BYTES)


def open_onnx(file: Path, signature: Signature) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what runs a file, on the CPU."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what it says of nodes it could leave out is not for whoever exports
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, sess_options=options, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(list(signature.outputs), {INPUT: images.numpy()})))

    return answer
