"""Weights by name or file, before anything is read."""

from collections.abc import Sequence
from pathlib import Path

from unfreeze.errors import UnfreezeError, suggest

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def find_weights(given: str, *, names: Sequence[str], title: str) -> str | Path:
    """Return what a person meant by `model.weights`; reads nothing but whether a file is there.

    Args:
        given: What was typed.
        names: Of published weights, the default first.
        title: What the network is called.

    Raises:
        UnfreezeError: If it is neither a published name nor a file.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES or "/" in given:
        raise UnfreezeError(f"model.weights: no file {given!r}; want a .pth or .safetensors file, or a name")
    if given == "DEFAULT" and names:
        return names[0]
    if given not in names:
        allowed = [name for name in dict.fromkeys(["DEFAULT", *names]) if names]
        wanted = f"{suggest(given, allowed)}, a file, or null" if allowed else "a file, or null: none are published"
        raise UnfreezeError(f"model.weights: {title} has no {given!r}; want {wanted}")
    return given
