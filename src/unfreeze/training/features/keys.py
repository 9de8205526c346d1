"""The key of features: another one where anything has changed that decides them."""

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from enum import Enum
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor, nn

import unfreeze
from unfreeze.data.image_data import ImageData
from unfreeze.data.sources.images import Indices
from unfreeze.models.partition import Partition
from unfreeze.training.features.extraction import Kind
from unfreeze.training.features.table import RowLayout
from unfreeze.training.module import ImageClassifier

_LAYOUT = 1
_PLAIN = (bool, int, float, str, bytes, Enum, torch.dtype, torch.device)
_LIBRARIES = sys.stdlib_module_names | {"torch", "torchvision", "timm", "unfreeze"}
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def digest_of(prefix: nn.Module) -> str:
    """Return a hash of a prefix: of its modules, their attributes and code, and of all their tensors."""
    total = blake2b(structure_of(prefix).encode(), digest_size=16)
    tensors = {**dict(prefix.named_buffers()), **prefix.state_dict()}  # which buffers need not be in
    for name, tensor in tensors.items():
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(_bytes_of(tensor))
    return total.hexdigest()


def structure_of(network: nn.Module) -> str:
    """Return a hash of what a network is beside its tensors and modes: its modules, their attributes and code."""
    total = blake2b(str(network).encode(), digest_size=16)
    for name, module in network.named_modules():
        own = {key: _told(value) for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        kind: Any = type(module)
        total.update(f"{name} {kind} {sorted(own.items())} {_code_of(kind)}".encode())
    return total.hexdigest()


def _told(value: object) -> object:
    """Return what prints of an attribute, the same in each process: values, and of functions and others their names."""
    if isinstance(value, _PLAIN) or value is None:
        return value
    if isinstance(value, Mapping):
        return sorted((str(key), str(_told(each))) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return [_told(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(_told(each)) for each in value)
    if isinstance(value, (Tensor, np.ndarray)):
        return str(value.dtype), tuple(value.shape), blake2b(_bytes_of(torch.as_tensor(value))).hexdigest()
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


@cache
def _code_of(kind: Any) -> str:
    """Return a hash of the files that a class of modules may have its forward from; "" for a library's.

    These are its own and those of what it inherits from, with all modules of their folders that are loaded. A
    library's version stands for it.
    """
    files = {_file_of(each) for each in kind.__mro__ if each.__module__.partition(".")[0] not in _LIBRARIES} - {""}
    total = blake2b(digest_size=16)
    for file in sorted(files.union(*map(_loaded_beside, files))):
        with suppress(OSError):
            total.update(Path(file).read_bytes())
    return total.hexdigest() if files else ""


def _file_of(kind: Any) -> str:
    """Return the file of a class; "" for one that a program has made, as a trace does."""
    file = next((each.__code__.co_filename for each in vars(kind).values() if inspect.isfunction(each)), "")
    return file if os.path.isfile(file) else ""


def _loaded_beside(file: str) -> set[str]:
    folder = os.path.join(Path(file).parent, "")
    loaded = (str(getattr(module, "__dict__", {}).get("__file__")) for module in [*sys.modules.values()])
    return {each for each in loaded if each.startswith(folder) and each.endswith(".py") and "-packages" not in each}


def features_key(prefix_digest: str, facts: Mapping[str, Any]) -> str:
    """Return the name that the features of a prefix have.

    Args:
        prefix_digest: Of `digest_of`.
        facts: What else decides them, in values that print.
    """
    return blake2b(f"{_LAYOUT} {prefix_digest} {sorted(facts.items())}".encode(), digest_size=16).hexdigest()


def feature_facts(
    module: ImageClassifier,
    data: ImageData,
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


def entry_metadata(
    module: ImageClassifier,
    data: ImageData,
    partition: Partition,
    layouts: Sequence[RowLayout],
    *,
    rows: int,
    sweep: Path | None,
) -> dict[str, object]:
    """Return the facts that `unfreeze cache` lists of stored features.

    Args:
        module: The module that trains.
        data: The images.
        partition: Its network, cut.
        layouts: Of a row.
        rows: The number of rows that are done.
        sweep: The sweep whose runs share the features; None for features that outlive it.
    """
    return {
        **({} if sweep is None else {"sweep": str(sweep)}),
        "model": module.classifier.architecture,
        "boundary": partition.name,
        "source": data.source.name,
        "images": rows,
        "shape": [" x ".join(map(str, layout.shape)) for layout in layouts],
        "dtype": str(layouts[0].dtype).removeprefix("torch."),
    }


def cut_key(module: ImageClassifier, partition: Partition, prefix_digest: str) -> tuple[object, ...]:
    """Return what decides whether the parts of a cut compute what the whole network computes.

    Args:
        module: The module that trains.
        partition: Its network, cut.
        prefix_digest: Of `digest_of`.
    """
    modes = tuple(each.training for each in module.network.modules())
    setup = module.preprocessing.crop_px, module.channels_last, module.device, rounding(module.device)
    network = str(module.classifier.spec.to_record()), structure_of(module.network)
    return prefix_digest, *network, partition.boundary, modes, setup


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _libraries_of(network: nn.Module) -> list[tuple[str, str]]:
    """Return the libraries whose modules a network is made of, with their versions where they have one."""
    names = {type(module).__module__.partition(".")[0] for module in network.modules()}
    return [(name, str(getattr(sys.modules.get(name), "__version__", ""))) for name in sorted(names)]
