"""A configuration as train.py composes it, and its refusals in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.config.overrides import expand_arguments, override_key, quote, split_arguments
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose_config(overrides: list[str], config_dir: Path | None = None) -> "DictConfig":
    """Return a configuration for the commands beside train.py.

    Args:
        overrides: As for train.py.
        config_dir: A folder of a person's own configs, searched before conf/.

    Raises:
        UnfreezeError: If they don't compose.
    """
    from unfreeze.config.composition_messages import COMPOSITION_ERRORS
    from unfreeze.config.resolvers import register_resolvers

    register_resolvers()
    flags, expanded = split_arguments(expand_arguments(overrides))
    if flags:
        raise UnfreezeError(f"{flags[0]}: a flag of train.py alone; leave it out")
    if config_dir is not None and not config_dir.is_dir():
        raise UnfreezeError(f"--config-dir: no folder {str(config_dir)!r}; want one with configs in it")
    try:
        return _compose(expanded, config_dir)
    except COMPOSITION_ERRORS as error:
        raise refusal_to_compose(error, expanded, config_dir) from None


def refusal_to_compose(error: Exception, overrides: Sequence[str], config_dir: Path | None) -> UnfreezeError:
    """Return an error of Hydra's composition as one line.

    Args:
        error: One of `COMPOSITION_ERRORS`.
        overrides: As given to Hydra.
        config_dir: A folder of a person's own configs.
    """
    from unfreeze.config.composition_messages import describe_composition_error

    folders = [*([config_dir] if config_dir else []), conf_folder()]
    composed = _compose_what_does(overrides, config_dir)
    return UnfreezeError(describe_composition_error(error, overrides, composed, folders))


def conf_folder() -> Path:
    """Return the folder of configs: the checkout's, or the one that the wheel carries."""
    carried = Path(__file__).parents[1] / "conf"
    return carried if carried.is_dir() else Path(__file__).parents[3] / "conf"


def _compose(overrides: Sequence[str], config_dir: Path | None, *, with_hydra: bool = False) -> "DictConfig":
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    own = [] if config_dir is None else [f"hydra.searchpath=[{quote(f'file://{config_dir.absolute()}')}]"]
    outer = GlobalHydra.instance().hydra  # where train.py's own Hydra is running
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=[*overrides, *own], return_hydra_config=with_hydra)
    finally:
        GlobalHydra.instance().hydra = outer


def _compose_what_does(overrides: Sequence[str], config_dir: Path | None) -> "DictConfig | None":
    """Return the configuration of the groups that were chosen, or the default one; None where neither composes."""
    from unfreeze.config.composition_messages import COMPOSITION_ERRORS

    chosen = [override for override in overrides if "." not in override_key(override)]
    for attempt in (chosen, []):
        try:
            return _compose(attempt, config_dir, with_hydra=True)
        except COMPOSITION_ERRORS:
            continue
    return None


def instantiate(node: "DictConfig", **arguments: Any) -> Any:
    """Return the object that a node with a `_target_` describes."""
    from hydra.utils import instantiate as build

    return build(node, **arguments)
