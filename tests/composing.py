"""Composing a configuration as train.py does, for tests."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from unfreeze.config.resolvers import register_resolvers

CONF = Path(__file__).parents[1] / "conf"


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """Return what Hydra makes of some overrides."""
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=with_hydra)


def composed_values(*overrides: str) -> dict[str, Any]:
    """Return the same as plain values, without what only Hydra reads."""
    values = OmegaConf.to_container(composed(*overrides), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in ("hydra", "experiment", "sweep")}
