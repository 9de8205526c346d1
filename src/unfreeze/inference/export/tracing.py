"""One-line errors for networks that torch.export can't trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException
from torch.onnx import OnnxExporterError

from unfreeze.errors import UnfreezeError


@contextmanager
def traceable() -> Iterator[None]:
    """Convert errors of torch.export in this context.

    Raises:
        UnfreezeError: If the network can't be traced, with the cause.
    """
    try:
        yield
    except (OnnxExporterError, TorchDynamoException, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UnfreezeError(
            f"export: torch.export can't follow the network's code ({reason}); --to safetensors takes only its weights"
        ) from None
