"""The key of features: another one where anything has changed that decides them."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from torch import nn

import unfreeze
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.models.partition import Partition
from unfreeze.training.extraction import Kind
from unfreeze.training.features import RowLayout
from unfreeze.training.module import ImageClassifier

_LAYOUT = 1
_PLAIN = (bool, int, float, str, tuple)
_LIBRARIES = ("torch", "torchvision", "timm", "unfreeze")


def digest_of(prefix: nn.Module) -> str:
    """Return a hash of a prefix: of its modules, their plain attributes and code, and of all their tensors."""
    total = blake2b(structure_of(prefix).encode(), digest_size=16)
    tensors = {**dict(prefix.named_buffers()), **prefix.state_dict()}  # which buffers need not be in
    for name, tensor in tensors.items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def structure_of(network: nn.Module) -> str:
    """Return a hash of what a network is beside its tensors and modes: its modules, their plain attributes and code."""
    total = blake2b(str(network).encode(), digest_size=16)
    for name, module in network.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN) and key != "training"}
        kind: Any = type(module)
        total.update(f"{name} {kind} {sorted(plain.items())} {_code_of(kind)}".encode())
    return total.hexdigest()


@cache
def _code_of(kind: Any) -> str:
    """Return the file that a class of modules has its forward from, where no library's version stands for it."""
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        return ""
    try:
        return Path(inspect.getfile(kind.forward)).read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError):  # made by a program, such as what a trace gives
        return ""


def features_key(prefix_digest: str, facts: Mapping[str, Any]) -> str:
    """Return the name that the features of a prefix have.

    Args:
        prefix_digest: Of `digest_of`.
        facts: What else decides them, in values that print.
    """
    return blake2b(f"{_LAYOUT} {prefix_digest} {sorted(facts.items())}".encode(), digest_size=16).hexdigest()


def feature_facts(
    module: ImageClassifier,
    data: ImageDataModule,
    partition: Partition,
    kind: Kind,
    *,
    layouts: Sequence[RowLayout],
    wanted: Indices | None,
) -> Mapping[str, Any]:
    """Return what decides features beside the prefix and its weights.

    Args:
        module: Prepares the images.
        data: Holds them.
        partition: Its prefix computes the features.
        kind: Which features of an image.
        layouts: Of a row.
        wanted: The images that have a row; None for all.
    """
    store = data.store
    augmented = None
    if kind.epoch is not None:
        augmented = {**asdict(module.augmentation), "mirror": module.mirror, "seed": module.seed}
    return {
        "network": module.classifier.spec.to_record(),
        "boundary": partition.boundary,
        "preprocessing": module.preprocessing.to_dict(),
        "channels_last": module.channels_last,
        "frame": store.frame,
        "data": blake2b(store.facts.digests.tobytes(), digest_size=16).hexdigest(),
        "images": None if wanted is None else blake2b(wanted.tobytes(), digest_size=16).hexdigest(),
        "kind": kind,
        "layouts": tuple(layouts),
        "augmented": augmented,
        "device": _device_name(module.device),
        "products": rounding(module.device),
        "versions": (torch.__version__, torchvision.__version__, PIL.__version__, unfreeze.__version__),
        "libraries": _libraries_of(partition.prefix),
    }


def rounding(device: torch.device) -> tuple[str, bool]:
    """Return how products in float32 are rounded: by matrix products, and by convolutions of a GPU."""
    return torch.get_float32_matmul_precision(), device.type == "cuda" and torch.backends.cudnn.allow_tf32


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _libraries_of(network: nn.Module) -> list[tuple[str, str]]:
    """Return the libraries whose modules a network is made of, with their versions where they tell."""
    names = {type(module).__module__.partition(".")[0] for module in network.modules()}
    return [(name, str(getattr(sys.modules.get(name), "__version__", ""))) for name in sorted(names)]
