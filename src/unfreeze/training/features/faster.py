"""A copy of a frozen prefix that computes nearly the same, sooner: norms folded, in bf16, compiled."""

import copy
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from unfreeze.system.accelerator import synchronize

log = logging.getLogger(__name__)

_CLEARLY = 0.9
_HOPELESS = 2.0
"""What takes so many times as long at its first batch is not tried again."""

_COMPILING_S = 60.0
_COMPILED_SHARE = 0.6
_LARGEST_ERROR = 0.02
_AND = ", "


@dataclass(frozen=True, eq=False)
class FasterPrefix:
    """A copy of a prefix that computes its features faster.

    Args:
        module: Takes images, returns a tuple of activations.
        how: What was done to it, in words; "" where it is the prefix itself.
    """

    module: nn.Module
    how: str


class _InBf16(nn.Module):
    """Runs a module in bf16, and returns activations in the module's own precision."""

    def __init__(self, module: nn.Module, dtypes: list[torch.dtype]) -> None:
        super().__init__()
        self._module = module
        self._dtypes = dtypes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(images.device.type, torch.bfloat16):
            values = self._module(images)
        return tuple(value.to(dtype) for value, dtype in zip(values, self._dtypes, strict=True))


@torch.no_grad()
def faster_prefix(prefix: nn.Module, images: Tensor, *, passes: int) -> FasterPrefix:
    """Return the fastest of a prefix and its nearly equal copies, by a trial of each on a batch.

    A copy that can't be made, errs by more than 2 % of the largest activation, or is not clearly faster is left out;
    compiling is tried only where it can pay for itself.

    Args:
        prefix: Of a partition, in eval mode.
        images: A batch, preprocessed, float32, shape (N, C, H, W).
        passes: How many images will be computed.
    """
    truth = prefix(images)
    best, seconds = FasterPrefix(prefix, ""), _seconds(prefix, images)
    for how, make in _copies([value.dtype for value in truth]):
        if how == "compiled" and passes / len(images) * seconds * (1 - _COMPILED_SHARE) < _COMPILING_S:
            continue
        try:
            candidate = make(best.module)
            started = time.perf_counter()
            values = candidate(images)
            first = time.perf_counter() - started
            if not _is_near(truth, values) or (how != "compiled" and first > _HOPELESS * seconds):
                continue
            taken = _seconds(candidate, images)
        except Exception as error:  # tracing and compiling run code of others, which may raise anything
            log.debug(f"a {how} copy of the prefix can't be made: {error}")
            continue
        if taken < _CLEARLY * seconds:
            parts = [part for part in (best.how, how) if part]
            best, seconds = FasterPrefix(candidate, _AND.join(parts)), taken
    return best


@torch.no_grad()
def same_copy(prefix: nn.Module, images: Tensor, *, how: str) -> FasterPrefix:
    """Return the copy of a prefix that a trial has found, without a trial.

    Args:
        prefix: Of a partition, in eval mode.
        images: A batch, preprocessed, float32, shape (N, C, H, W).
        how: What `FasterPrefix` said of it.
    """
    module = prefix
    for what, make in _copies([value.dtype for value in prefix(images)]):
        if what in how.split(_AND):
            module = make(module)
    return FasterPrefix(module, how)


def _copies(dtypes: list[torch.dtype]) -> Iterator[tuple[str, Callable[[nn.Module], nn.Module]]]:
    """Yield what may be done, each on top of what has proved faster before."""
    yield "norms folded", lambda module: fuse(copy.deepcopy(module)).to(memory_format=torch.channels_last).eval()
    yield "bf16", lambda module: _InBf16(module, dtypes)
    if shutil.which("g++") or shutil.which("clang++") or torch.cuda.is_available():
        yield "compiled", _compiled


def _compiled(module: nn.Module) -> nn.Module:
    return cast("nn.Module", torch.compile(module, options={"freezing": True}))


def _seconds(module: nn.Module, images: Tensor) -> float:
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        module(images)
        synchronize(images.device)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _is_near(truth: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> bool:
    return all(
        float((a.float() - b.float()).abs().max()) <= _LARGEST_ERROR * float(a.abs().max())
        for a, b in zip(truth, values, strict=True)
    )
