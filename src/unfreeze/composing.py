"""A configuration as train.py composes it, for the commands beside it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose_config(overrides: list[str], config_dir: Path | None = None) -> "DictConfig":
    """Return a configuration; what does not compose ends in Hydra's own words and exit code 2.

    Args:
        overrides: As for train.py.
        config_dir: A folder of a person's own configs, searched before conf/.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from unfreeze.arguments import expand_arguments
    from unfreeze.resolvers import register_resolvers

    register_resolvers()
    expanded = expand_arguments(overrides)
    if config_dir is not None:
        expanded.append(f"hydra.searchpath=[file://{config_dir.absolute()}]")
    try:
        with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=expanded)
    except HydraException as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def conf_folder() -> Path:
    """Return the folder of configs: the checkout's, or the one that the wheel carries."""
    carried = Path(__file__).with_name("conf")
    return carried if carried.is_dir() else Path(__file__).parents[2] / "conf"
