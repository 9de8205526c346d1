"""Lookup of weights by name or file, without reading them."""

from collections.abc import Sequence
from pathlib import Path

from unfreeze.errors import UnfreezeError, suggest

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def find_weights(given: str, *, names: Sequence[str], title: str) -> str | Path:
    """Return the name of published weights, or the path of a file.

    Args:
        given: Value of `model.weights`.
        names: Names of the published weights, the default first.
        title: Name of the network, for error messages.

    Raises:
        UnfreezeError: If the value is neither a published name nor a file.
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
