"""The Lightning Trainer of a run, its loggers and the callbacks that a person adds."""

import logging
from collections.abc import Sequence
from pkgutil import resolve_name

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from unfreeze.config.compose import instantiate
from unfreeze.config.schema import Config
from unfreeze.errors import UnfreezeError, first_line
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.precision import allow_tf32
from unfreeze.runs.builders.trainer_arguments import bare_trainer, trainer_arguments
from unfreeze.system.cores import allowed_cores
from unfreeze.training.callbacks.checkpointing import BestCheckpoint, CheckpointFiles, LastCheckpoint
from unfreeze.training.callbacks.seeding import SeededSteps
from unfreeze.training.plan.limits import parse_max_time
from unfreeze.training.step_savings import Unprofiled


def check_trainer(config: Config) -> Trainer:
    """Return a Trainer without callbacks, to have Lightning check its arguments before anything is loaded.

    Raises:
        UnfreezeError: If Lightning refuses them, or there are more ranks than cores.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # `announce` says the same in fewer lines
    try:
        parse_max_time(config.trainer.get("max_time"))
        trainer = bare_trainer(config)
    except Exception as error:
        accelerator = config.trainer.get("accelerator", "auto")
        hint = "" if accelerator in ("auto", "cpu") else "; type trainer.accelerator=auto to use what this machine has"
        raise UnfreezeError(f"trainer: {first_line(error).rstrip('.!')}{hint}") from None
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > allowed_cores():
        raise UnfreezeError(
            f"trainer.devices: got {trainer.num_devices}, but this process may use {allowed_cores()} cores, and each "
            f"rank on the CPU needs one; type trainer.devices={allowed_cores()} or fewer"
        )
    return trainer


def build_trainer(
    config: Config,
    raw: DictConfig,
    directory: RunDirectory,
    callbacks: Sequence[Callback],
    *,
    start_step: int = 0,
) -> Trainer:
    """Return a Trainer that writes into a run's directory, and set the float32 arithmetic of its device."""
    max_time = parse_max_time(config.trainer.get("max_time"))
    extra = [instantiate(node) for node in (raw.callbacks or {}).values() if node is not None]
    folder = directory.checkpoints
    best = BestCheckpoint(folder, monitor=config.monitor, mode=config.monitor_mode, keep=config.keep_best)
    trainer = Trainer(
        **{"profiler": Unprofiled(), "plugins": [CheckpointFiles()], **trainer_arguments(config)},
        callbacks=[*callbacks, SeededSteps(config.seed), *extra, best, LastCheckpoint(folder, max_time=max_time)],
        logger=_build_loggers(raw, directory, start_step),
        default_root_dir=directory.path,
    )
    allow_tf32(config, trainer.strategy.root_device)
    return trainer


def check_nodes(raw: DictConfig) -> None:
    """Refuse callbacks and loggers that can't be made."""
    for group in ("callbacks", "logger"):
        for name, node in (raw.get(group) or {}).items():
            if node is None:
                continue
            if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
                raise UnfreezeError(f"{group}.{name}: got {node!r}, want null, or a mapping with a _target_ to import")
            try:
                # A logger may reach for a server when it is made: that it can be imported is enough here.
                made = instantiate(node) if group == "callbacks" else resolve_name(node["_target_"])
            except Exception as error:
                cause = error.__cause__ or error  # Hydra puts its own words around what the callback raised
                if isinstance(cause, UnfreezeError):
                    raise cause from None
                raise UnfreezeError(f"{group}.{name}: can't be made ({first_line(cause)})") from None
            if group == "callbacks" and not isinstance(made, Callback):
                raise UnfreezeError(f"callbacks.{name}: {node._target_} is no lightning.Callback")


def _build_loggers(raw: DictConfig, directory: RunDirectory, start_step: int) -> list[Logger] | bool:
    loggers = []
    for node in (node for node in (raw.logger or {}).values() if node is not None):
        # TensorBoard drops what a killed run had logged beyond the checkpoint, from this step on.
        purge = {"purge_step": start_step + 1} if start_step and "TensorBoard" in node["_target_"] else {}
        loggers.append(instantiate(node, save_dir=str(directory.path), **purge))
    return loggers or False
