"""Reading of weights from files, and loading into networks."""

import argparse
import pickle
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.state_dicts import load_state
from unfreeze.system.files import strange_content

CHECKPOINT_KEY = "unfreeze"
"""Key of the classifier's record in a checkpoint of this project."""

NETWORK_PREFIX = "network."
"""Prefix of the network's entries in the state_dict of such a checkpoint."""

_HOLDERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module")
"""Keys of the state_dict in checkpoints, by priority; averaged weights come first, as they were evaluated."""

_ARCHIVE = b"PK\x03\x04"
"""First bytes of a file of torch.save."""

_COMPILED = "_orig_mod."
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


@dataclass(frozen=True)
class WeightsReport:
    """Report on the entries of a loaded state_dict.

    Args:
        matched: Number of loaded entries.
        old_head: Names of the entries of the replaced head.
        unexpected: Names of the entries that the backbone does not have.
    """

    matched: int
    old_head: tuple[str, ...]
    unexpected: tuple[str, ...]


def read_file(path: Path, *, wanted: Collection[str]) -> dict[str, Tensor]:
    """Return a state_dict in float32 on the CPU, without running code in the file.

    Prefixes of the names that DDP, compile or a wrapping module have added are removed.

    Args:
        path: File of torch.save or safetensors with a state_dict, or with a checkpoint that has one.
        wanted: Names of the network's entries.

    Raises:
        UnfreezeError: If there is no state_dict, or it has values that are not finite.
    """
    state = {
        key.replace(_COMPILED, ""): value.float() if value.is_floating_point() else value
        for key, value in _entries(path).items()
        if isinstance(value, Tensor)
    }
    _check_finite(path, state)
    return _unwrap(state, set(wanted))


def load_backbone(
    network: nn.Module, state: Mapping[str, Tensor], *, heads: Sequence[str], source: str
) -> WeightsReport:
    """Load a state_dict into everything but the heads.

    Args:
        network: Stock classifier, changed in place; its heads stay unchanged.
        state: Entries by the keys of the stock module.
        heads: Qualified names of the heads.
        source: Origin of the entries, for error messages.

    Raises:
        UnfreezeError: If an entry of the backbone is missing or has another shape.
    """
    of_heads = tuple(f"{head}." for head in heads)
    backbone = {key: value for key, value in network.state_dict().items() if not key.startswith(of_heads)}
    missing = [key for key in backbone if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [
        f"{key} is {tuple(state[key].shape)}, want {tuple(value.shape)}"
        for key, value in backbone.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or wrong:
        shown = "; ".join([*wrong[:3], *(f"{key} is missing" for key in missing[:3])])
        raise UnfreezeError(
            f"model.weights: {source} does not fit the backbone ({len(wrong)} shapes differ, {len(missing)} of "
            f"{len(backbone)} entries are missing): {shown}. Type the model.name that it was saved from"
        )
    matched = {key: state[key] for key in backbone if key in state}
    load_state(network, matched, strict=False)
    rest = [key for key in state if key not in backbone and not key.startswith(_AUXILIARY)]
    return WeightsReport(
        matched=len(matched),
        old_head=tuple(key for key in rest if key.startswith(of_heads)),
        unexpected=tuple(key for key in rest if not key.startswith(of_heads)),
    )


def load_heads(network: nn.Module, state: Mapping[str, Tensor], *, heads: Sequence[str], source: str) -> None:
    """Load a state_dict into the heads of a stock classifier; see `load_backbone`.

    Raises:
        UnfreezeError: If they are missing, or have another number of classes.
    """
    of_heads = tuple(f"{head}." for head in heads)
    own = {key: value for key, value in network.state_dict().items() if key.startswith(of_heads)}
    if any(key not in state or state[key].shape != value.shape for key, value in own.items()):
        raise UnfreezeError(
            f"model.weights: {source} has another head than the published one, so that the names of its classes are "
            "not known; want the published weights"
        )
    load_state(network, {key: state[key] for key in own}, strict=False)


def load_plain(path: Path) -> Any:
    """Return the content of a file of torch.save on the CPU, without running code in it.

    Raises:
        UnfreezeError: If it can't be read; the message is only the reason, in a few words.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm stores its arguments with the weights
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnfreezeError(error.strerror or first_line(error)) from None
    except Exception as error:  # other and damaged files raise all kinds of exceptions
        raise UnfreezeError(_reason(path, error)) from None


def _reason(path: Path, error: Exception) -> str:
    """Return in a few words the reason why torch.load can't read a file."""
    content = strange_content(path)
    if content is not None:
        return f"it is {content}"
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if is_archive and not zipfile.is_zipfile(path):
        return "it is incomplete: its end is missing"
    if "weights_only" in str(error) and (is_archive or _is_pickle(path)):
        return "it holds more than tensors and plain values"
    return "it is not a file of torch.save, or incomplete"


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UnfreezeError(
            f"model.weights: {path} has NaN or infinite values in {len(broken)} of {len(state)} entries, such as "
            f"{broken[0]}; want weights of a training that did not diverge"
        )


def _entries(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else load_plain(path)
    except (UnfreezeError, SafetensorError, OSError, ValueError) as error:
        content = strange_content(path) if path.is_file() else None
        raise UnfreezeError(
            f"model.weights: {path} can't be read as weights ({f'it is {content}' if content else first_line(error)}); "
            "want a state_dict saved by torch.save or safetensors, which runs no code when loaded"
        ) from None
    if isinstance(content, Mapping):
        is_ours = CHECKPOINT_KEY in content
        content = next((content[key] for key in _HOLDERS if isinstance(content.get(key), Mapping)), content)
        content = {key: value for key, value in content.items() if isinstance(key, str)}
        if is_ours:  # the state_dict also has the states of metrics
            content = {key: value for key, value in content.items() if key.startswith(NETWORK_PREFIX)}
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise UnfreezeError(f"model.weights: {path} holds {type(content).__name__}, not a state_dict")
    return content


def _unwrap(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Remove the prefix of most names, such as that of DDP or of a wrapping module."""
    prefixes = Counter(key[: len(key) - len(name)] for key in state for name in _endings(key) if name in wanted)
    prefix, count = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    if count <= prefixes[""]:
        return state
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {**{key: value for key, value in state.items() if not key.startswith(prefix)}, **inside}


def _endings(key: str) -> Iterator[str]:
    """Yield a qualified name, and its ends without the first part, the first two parts, and so on."""
    while key:
        yield key
        key = key.partition(".")[2]
