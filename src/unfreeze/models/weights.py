"""Weights from a name or a file, and what becomes of their entries."""

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
"""Where a checkpoint of this project keeps the record of its classifier."""

NETWORK_PREFIX = "network."
"""What the names of its network's entries begin with there."""

_HOLDERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module")
"""Where checkpoints keep a state_dict, the first that is there; an average is what was judged."""

_ARCHIVE = b"PK\x03\x04"
"""What a file of torch.save begins with."""

_COMPILED = "_orig_mod."
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


@dataclass(frozen=True)
class WeightsReport:
    """What became of the entries of a state_dict.

    Args:
        matched: Entries that were loaded.
        old_head: Entries of the head that was replaced.
        unexpected: Entries that the backbone has no place for.
    """

    matched: int
    old_head: tuple[str, ...]
    unexpected: tuple[str, ...]


def read_file(path: Path, *, wanted: Collection[str]) -> dict[str, Tensor]:
    """Return a state_dict, in float32, on the CPU; nothing in the file can run.

    What DDP, compile or a module around it have put before the names is taken away where the network has none such.

    Args:
        path: Saved by torch.save or safetensors: a state_dict, or a checkpoint that has one.
        wanted: Names of the network's entries.

    Raises:
        UnfreezeError: If it is not a state_dict, or has values that are not finite.
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
        network: A stock classifier, changed in place; its own heads stay.
        state: Entries by the stock module's keys.
        heads: Qualified names of the heads.
        source: Where the entries come from, for messages.

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
        told = "; ".join([*wrong[:3], *(f"{key} is missing" for key in missing[:3])])
        raise UnfreezeError(
            f"model.weights: {source} does not fit the backbone ({len(wrong)} shapes differ, {len(missing)} of "
            f"{len(backbone)} entries are missing): {told}. Type the model.name that it was saved from"
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
        UnfreezeError: If they are missing, or tell another number of classes.
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
    """Return what torch.save has written, on the CPU; nothing in the file can run.

    Raises:
        UnfreezeError: Saying why it can't be read, in a few words, and nothing else.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its arguments beside the weights
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnfreezeError(error.strerror or first_line(error)) from None
    except Exception as error:  # what is no such file, or a broken one, fails in every way there is
        raise UnfreezeError(_why_not(path, error)) from None


def _why_not(path: Path, error: Exception) -> str:
    """Return in a few words why a file can't be read as one of torch.save."""
    content = strange_content(path)
    if content is not None:
        return f"it is {content}"
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if is_archive and not zipfile.is_zipfile(path):
        return "it is not whole: its end is missing"
    if "weights_only" in str(error) and (is_archive or _is_pickle(path)):
        return "it holds more than tensors and plain values"
    return "it is no file of torch.save, or not whole"


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
        if is_ours:  # beside it are sums of metrics
            content = {key: value for key, value in content.items() if key.startswith(NETWORK_PREFIX)}
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise UnfreezeError(f"model.weights: {path} holds {type(content).__name__}, not a state_dict")
    return content


def _unwrap(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Take away what stands before most of the names: of DDP, or of whatever has held the network."""
    prefixes = Counter(key[: len(key) - len(name)] for key in state for name in _endings(key) if name in wanted)
    prefix, count = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    if count <= prefixes[""]:
        return state
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {**{key: value for key, value in state.items() if not key.startswith(prefix)}, **inside}


def _endings(key: str) -> Iterator[str]:
    """Yield a name, and what is left of it without its first part, its first two, and so on."""
    while key:
        yield key
        key = key.partition(".")[2]
