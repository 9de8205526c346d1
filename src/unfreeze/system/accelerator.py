"""Copies to a device, and waiting for it, alike on every kind of accelerator."""

import torch
from torch import Tensor


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was asked of it; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device.

    On CUDA the copy goes through page-locked memory and is not waited for. Elsewhere it is waited for: on MPS a copy
    from memory that is freed meanwhile would read what comes after it.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)
