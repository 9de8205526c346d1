"""Weights from a name, a file, or the package itself."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from unfreeze.assets import TINY_WEIGHTS
from unfreeze.errors import UnfreezeError, suggest
from unfreeze.models.backbones import Architecture

_WRAPPERS = ("module.", "_orig_mod.", "network.", "model.")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


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


def resolve_weights(architecture: Architecture, given: str | None) -> WeightsEnum | Path | None:
    """Return what a person meant by `model.weights`; reads nothing but whether a file is there.

    Raises:
        UnfreezeError: If it is neither a name that the architecture has nor a file.
    """
    if given is None:
        return None
    if architecture.name == "tiny" and given == "DEFAULT":
        return TINY_WEIGHTS
    path = Path(given).expanduser()
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES or "/" in given:
        raise UnfreezeError(f"model.weights: no file {given!r}; want a .pth or .safetensors file, or a name")
    named = {weights.name: weights for weights in architecture.weights}
    if given == "DEFAULT" and architecture.weights:
        return architecture.weights[0]
    if given not in named:
        allowed = ["DEFAULT", *named] if named else ["DEFAULT"]
        raise UnfreezeError(
            f"model.weights: {architecture.name} has no {given!r}; want {suggest(given, allowed)}, a file, or null"
        )
    return named[given]


def read_weights(architecture: Architecture, weights: WeightsEnum | Path) -> dict[str, Tensor]:
    """Return a state_dict by the stock module's keys, in float32, on the CPU.

    Raises:
        UnfreezeError: If a download fails, or a file is not a state_dict.
    """
    state = _read_file(weights) if isinstance(weights, Path) else _download(architecture, weights)
    return {
        _strip_wrappers(key): value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_backbone(network: nn.Module, state: Mapping[str, Tensor], *, head: str, source: str) -> WeightsReport:
    """Load a state_dict into everything but the head.

    Args:
        network: A stock classifier, changed in place; its own head stays.
        state: Entries by the stock module's keys.
        head: Qualified name of the head.
        source: Where the entries come from, for messages.

    Raises:
        UnfreezeError: If an entry of the backbone is missing or has another shape.
    """
    backbone = {key: value for key, value in network.state_dict().items() if not key.startswith(f"{head}.")}
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
    network.load_state_dict(matched, strict=False)
    rest = [key for key in state if key not in backbone and not key.startswith(_AUXILIARY)]
    return WeightsReport(
        matched=len(matched),
        old_head=tuple(key for key in rest if key.startswith(f"{head}.")),
        unexpected=tuple(key for key in rest if not key.startswith(f"{head}.")),
    )


def _download(architecture: Architecture, weights: WeightsEnum) -> Mapping[str, Tensor]:
    url = weights.url
    name = Path(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        kept = folder / name
        if isinstance(error, OSError) and not kept.is_file():
            reason = getattr(error, "reason", None) or error
            raise UnfreezeError(
                f"model.weights: {weights} of {architecture.name} could not be had from {url} ({reason}). "
                f"Put the file at {kept}, or type model.weights=path/to/file.pth, model.weights=null or model=tiny"
            ) from None
        raise UnfreezeError(
            f"model.weights: what came from {url} is not {weights} ({_first_line(error)}); "
            f"delete {kept} if it is there and try again"
        ) from None


def _read_file(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UnfreezeError(
            f"model.weights: {path} can't be read as weights ({_first_line(error)}); "
            "want a state_dict saved by torch.save or safetensors, which runs no code when loaded"
        ) from None
    if isinstance(content, Mapping):
        content = content.get("state_dict", content.get("model", content))
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise UnfreezeError(f"model.weights: {path} holds {type(content).__name__}, not a state_dict")
    return content


def _strip_wrappers(key: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPERS:
            if key.startswith(prefix):
                key, stripped = key.removeprefix(prefix), True
    return key


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
