"""The device for inference."""

import torch

from unfreeze.errors import UnfreezeError
from unfreeze.system.cores import limit_torch_threads
from unfreeze.system.memory import keep_freed_pages

DEVICES = ("auto", "cpu", "cuda", "mps")


def find_device(name: str) -> torch.device:
    """Return a device by name; "auto" is a GPU if there is one.

    Raises:
        UnfreezeError: If the name is unknown or this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in DEVICES:
        raise UnfreezeError(f"device: got {name!r}, want one of {', '.join(DEVICES)}")
    if name == "auto":
        return torch.device(next(each for each, is_available in available.items() if is_available))
    if not available[name]:
        found = ", ".join(each for each, is_available in available.items() if is_available)
        raise UnfreezeError(
            f"device: got {name!r}, which this machine does not have, or PyTorch can't use; it has {found}"
        )
    return torch.device(name)


def claim_device(name: str) -> torch.device:
    """Return a device, and set up this process for inference on it.

    Limits threads to the usable cores; on a CPU, also keeps freed memory, which makes networks up to three times as
    fast.

    Raises:
        UnfreezeError: As `find_device`.
    """
    limit_torch_threads()
    device = find_device(name)
    if device.type == "cpu":
        keep_freed_pages()
    return device
