"""The rule that decides where a run computes in bf16."""

import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from unfreeze.models.meta import on_meta
from unfreeze.training.precision.precision import BFLOAT16, FLOAT32, Precision

_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""CPU flags of x86 and ARM for bf16 products; without them a step takes ten times as long as in float32."""

_AMPERE = (8, 0)
"""The first compute capability of NVIDIA GPUs with bf16 tensor cores."""

_MOST_DEPTHWISE = 0.025
"""Share of the multiply-adds above which a CPU gains nothing from bf16: depthwise convolutions are bound by memory."""


def choose_precision(network: nn.Module, *, image_shape: tuple[int, int, int], device: torch.device) -> Precision:
    """Return bf16 where the device has instructions for it and the network can use them, else float32.

    Args:
        network: Left as it is.
        image_shape: Channels, height and width of its images.
        device: Where it trains.
    """
    if not has_bfloat16(device):
        return Precision(FLOAT32, note="the device has no bf16 instructions")
    if device.type == "cpu":
        share = depthwise_share(network, image_shape)
        if share > _MOST_DEPTHWISE:
            note = f"depthwise convolutions, {share:.0%} of the multiply-adds, gain nothing in bf16"
            return Precision(FLOAT32, note=note)
    return Precision(BFLOAT16, note="the device has bf16 instructions")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16 products."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return device.type == "cpu" and bool(_BF16_FLAGS & cpu_flags())


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the first core as Linux names them; none on other systems."""
    if platform.system() != "Linux":
        return frozenset()
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return frozenset()
    pairs = (line.partition(":") for line in first.splitlines())
    return frozenset(flag for key, _, value in pairs if key.strip() in ("flags", "Features") for flag in value.split())


@torch.no_grad()
def depthwise_share(network: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Return the share of a network's multiply-adds in depthwise convolutions, in [0, 1].

    Args:
        network: Copied to the meta device; the products of attention are not counted.
        image_shape: Channels, height and width of its images.
    """
    counts = {"all": 0, "depthwise": 0}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            counts["all"] += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            products = output.numel() * module.weight[0].numel()
            counts["all"] += products
            counts["depthwise"] += products * (module.groups == module.in_channels > 1)

    copy = on_meta(network).eval()
    for module in copy.modules():
        module.register_forward_hook(count)
    copy(torch.empty(1, *image_shape, device="meta"))
    return counts["depthwise"] / max(1, counts["all"])
