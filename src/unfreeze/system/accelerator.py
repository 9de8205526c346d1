"""Copies to a device and synchronisation, for every kind of accelerator."""

import torch
from torch import Tensor


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all submitted work; a no-op on a CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device.

    On CUDA the copy is asynchronous, from pinned memory. Elsewhere it is synchronous: on MPS an asynchronous copy could
    read memory that has been freed and reused.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)
