"""Where a network computes when it is used."""

import torch

from unfreeze.errors import UnfreezeError
from unfreeze.system.cores import limit_torch_threads
from unfreeze.system.memory import keep_freed_pages

DEVICES = ("auto", "cpu", "cuda", "mps")


def find_device(name: str) -> torch.device:
    """Return a device by name; "auto" is a GPU where there is one.

    Raises:
        UnfreezeError: If there is none such on this machine.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in DEVICES:
        raise UnfreezeError(f"device: got {name!r}, want one of {', '.join(DEVICES)}")
    if name == "auto":
        return torch.device(next(each for each, is_there in there.items() if is_there))
    if not there[name]:
        found = ", ".join(each for each, is_there in there.items() if is_there)
        raise UnfreezeError(
            f"device: got {name!r}, which this machine does not have, or PyTorch can't use; it has {found}"
        )
    return torch.device(name)


def claim_device(name: str) -> torch.device:
    """Return a device for a process that does nothing but compute on it, and set the process up for that.

    No more threads than cores; on a CPU, memory that is freed is kept, by which a network runs up to three times as
    fast.

    Raises:
        UnfreezeError: If there is none such on this machine.
    """
    limit_torch_threads()
    device = find_device(name)
    if device.type == "cpu":
        keep_freed_pages()
    return device
