"""Facts about a run, from its resolved configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def augmentations_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the augmentations of a run's stages, each once, in order; empty if unknown.

    Args:
        config: The resolved configuration.
    """
    stages, own = (config.get("strategy") or {}).get("stages") or [], (config.get("augment") or {}).get("name")
    names = [stage.get("augment") or own for stage in stages]
    return tuple(dict.fromkeys(str(name) for name in names if name is not None))


def data_name(data: Mapping[str, Any]) -> str:
    """Return the name of a run's data: of its folder or table, without the path.

    Args:
        data: The `data` section of its configuration.
    """
    if data.get("csv"):
        return Path(str(data["csv"])).stem
    return Path(str(data["root"])).name if data.get("root") else str(data.get("name", "images"))
