"""What can't be traced, said in a line."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException
from torch.onnx import OnnxExporterError

from unfreeze.errors import UnfreezeError


@contextmanager
def traceable() -> Iterator[None]:
    """Refuse, while the context lasts, a network whose code torch.export can't follow.

    Raises:
        UnfreezeError: With what it stumbled over.
    """
    try:
        yield
    except (OnnxExporterError, TorchDynamoException, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        told = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UnfreezeError(
            f"export: torch.export can't follow the network's code ({told}); --to safetensors takes its weights alone"
        ) from None
