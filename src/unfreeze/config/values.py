"""Values of a composed configuration, checked against the schema."""

import os
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unfreeze.config.overrides import check_not_empty, override_key
from unfreeze.config.schema import Config, parse_config
from unfreeze.errors import UnfreezeError, first_line


def check_values(raw: DictConfig, typed: Sequence[str]) -> Config:
    """Return the checked configuration; nothing is loaded for it.

    Raises:
        UnfreezeError: Naming each value that is wrong.
    """
    check_not_empty(typed)
    try:
        values = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise UnfreezeError(f"{error.full_key}: {first_line(error)}; mend what stands in ${{...}}") from None
    assert isinstance(values, dict)
    missing = sorted(OmegaConf.missing_keys(raw))
    if missing:
        raise UnfreezeError(f"{missing[0]}: missing; type {missing[0]}=...")
    named = {str(key): value for key, value in values.items() if key not in ("hydra", "experiment", "sweep")}
    config = parse_config(_without_weights_from_scratch(named, typed))
    root = config.data.root
    if config.data.name == "imagefolder" and root is not None and not os.path.isdir(os.path.expanduser(root)):
        raise UnfreezeError(
            f"data.root: no folder {root!r}. Want a folder of class folders, or one with train/ (and val/, test/) in it"
        )
    return config


def _without_weights_from_scratch(values: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Replace the weights by random ones for `strategy=scratch`, unless others were typed."""
    strategy, model = values.get("strategy"), values.get("model")
    if not (isinstance(strategy, dict) and strategy.get("from_scratch") is True and isinstance(model, dict)):
        return values
    asked = [override for override in typed if override_key(override) == "model.weights"]
    if asked and model["weights"] is not None:
        raise UnfreezeError(
            f"model.weights: {model['weights']!r} beside strategy={strategy.get('name')}, which starts from random "
            "weights; leave one of them out, or type strategy=finetune"
        )
    return {**values, "model": {**model, "weights": None}}
