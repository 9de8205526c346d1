"""Catalogue of networks by name, from a table in this package."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from unfreeze.errors import UnfreezeError, suggest

CATALOG = Path(__file__).parents[1] / "assets" / "models.csv"
COLUMNS = ("source", "name", "parameters", "gmacs", "image_size", "top1", "weights")
SOURCES = ("torchvision", "timm")


@dataclass(frozen=True)
class ListedNetwork:
    """A network of the catalogue.

    Args:
        source: "torchvision" or "timm".
        name: Value of `model.name`.
        parameters: Number of parameters with the published head; None if unknown.
        gmacs: Multiply-adds per image in billions, which papers mostly call GFLOPs; None if unknown.
        image_size: Image size in pixels for which they were counted.
        top1: Accuracy of the default weights on ImageNet-1K in percent; None if it is not published with them.
        is_cached: Whether the default weights are on this machine.
    """

    source: str
    name: str
    parameters: int | None
    gmacs: float | None
    image_size: int
    top1: float | None
    is_cached: bool


def list_networks(pattern: str | None = None, *, source: str | None = None) -> list[ListedNetwork]:
    """Return the networks whose names match.

    Args:
        pattern: Part of the name, or a shell pattern; None for all.
        source: One of `SOURCES`; None for all.

    Raises:
        UnfreezeError: If there is no such source, or nothing matches.
    """
    if source is not None and source not in SOURCES:
        raise UnfreezeError(f"models: --source: got {source!r}, want one of {', '.join(SOURCES)}")
    rows = [row for row in _rows() if source in (None, row["source"])]
    matching = [row for row in rows if pattern is None or _matches(row["name"], pattern)]
    if not matching:
        near = suggest(str(pattern), [row["name"] for row in rows])
        raise UnfreezeError(f"models: no name matches {pattern!r}; near: {near}")
    cached = _cached_weights()
    return [
        ListedNetwork(
            source=row["source"],
            name=row["name"],
            parameters=int(row["parameters"]) if row["parameters"] else None,
            gmacs=float(row["gmacs"]) if row["gmacs"] else None,
            image_size=int(row["image_size"]),
            top1=float(row["top1"]) if row["top1"] else None,
            is_cached=bool(row["weights"]) and row["weights"].replace("/", "--") in cached,
        )
        for row in matching
    ]


def network_names(source: str) -> list[str]:
    """Return the names of a source's networks, without the weight tags of timm."""
    return list(dict.fromkeys(row["name"].partition(".")[0] for row in _rows() if row["source"] == source))


def _rows() -> list[dict[str, str]]:
    with CATALOG.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name


def _cached_weights() -> set[str]:
    """Return the names of the weights in the cache folders of torch and Hugging Face, as in the catalogue."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    torch_home = Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser()
    hf_home = Path(os.environ.get("HF_HOME", cache / "huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", hf_home / "hub")).expanduser()
    patterns = ("models--*/snapshots/*/*.safetensors", "models--*/snapshots/*/*.bin")
    downloaded = (path.parents[2].name for pattern in patterns for path in _inside(hub, pattern))
    files = (path.name for path in _inside(torch_home / "hub" / "checkpoints", "*"))
    return {*files, *(name.removeprefix("models--") for name in downloaded)}


def _inside(folder: Path, pattern: str) -> Sequence[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return ()
