"""The arguments of Lightning's Trainer, and the number of processes that they mean."""

from typing import TYPE_CHECKING, Any

from unfreeze.config.schema import Config

if TYPE_CHECKING:
    from lightning import Trainer

_OWN_KEYS = ("compile", "tf32", "max_time")
"""Keys of `trainer` that are not Lightning's."""


def count_ranks(config: Config) -> int:
    """Return the number of processes that train together."""
    devices, nodes = config.trainer.get("devices"), config.trainer.get("num_nodes") or 1
    return devices * nodes if isinstance(devices, int) and devices > 0 else bare_trainer(config).world_size


def trainer_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of a Trainer, but for its callbacks and loggers."""
    arguments = {key: value for key, value in config.trainer.items() if value is not None and key not in _OWN_KEYS}
    if arguments.get("precision") == "auto":
        arguments["precision"] = "32-true"  # until the rule has chosen
    arguments |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    arguments["max_epochs"] = min(config.trainer.get("max_epochs") or 10**6, _most_epochs(config))
    if not (config.callbacks or {}).get("progress"):
        arguments["enable_progress_bar"] = False
    return arguments


def bare_trainer(config: Config) -> "Trainer":
    """Return a Trainer with the arguments of a configuration, without callbacks, loggers and checkpoints."""
    from lightning import Trainer

    return Trainer(**{**trainer_arguments(config), "logger": False, "enable_checkpointing": False})


def _most_epochs(config: Config) -> int:
    return sum(stage.epochs for stage in config.strategy.stages)
