"""Hyperparameters, layout and pictures of a run, for TensorBoard and other loggers."""

import re
from collections.abc import Sequence

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from unfreeze.config.overrides import override_key
from unfreeze.config.schema import Config
from unfreeze.evaluation.pictures.gallery import Picture
from unfreeze.training.plan.plan import Plan

_NO_HYPERPARAMETERS = re.compile(r"(hydra|cache|logger|callbacks|report|resume|sweep|experiment|keep_best)\b")
"""Keys that say where a run goes and what is shown of it, not what it learns."""


def log_hyperparameters(trainer: Trainer, config: Config, typed: Sequence[str], metrics: dict[str, float]) -> None:
    """Put the settings and the final metrics where TensorBoard's HParams compares runs."""
    values = hyperparameters(config, typed)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values, metrics)
            logger.log_metrics(metrics, step=trainer.global_step)
        else:
            logger.log_hyperparams(values)
        logger.save()


def hyperparameters(config: Config, typed: Sequence[str]) -> dict[str, float | str]:
    """Return the hyperparameters of a run: the main choices, and every other value that was typed.

    Stages that were typed stand in the place of the strategy that they replace.
    """
    values: dict[str, float | str] = {
        "data": config.data.name,
        "model": config.model.name,
        "strategy": config.strategy.name,
        "lr_head": config.strategy.lr.head,
        "batch_size": config.data.batch_size,
        "seed": config.seed,
    }
    named = {"strategy.lr.head": "lr_head", "data.batch_size": "batch_size", "model.name": "model"}
    for override in typed:
        key, value = override_key(override), override.partition("=")[2]
        if key.startswith("strategy.stages"):
            values["strategy"] = ", ".join(f"{stage.name} {stage.epochs}" for stage in config.strategy.stages)
        elif named.get(key, key) not in values and not _NO_HYPERPARAMETERS.match(key):
            values[key] = _number_or_text(value)
    return values


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def log_layout(trainer: Trainer, plan: Plan) -> None:
    """Group TensorBoard's curves by metrics, learning rates and cost."""
    layout = {
        "training": {
            "accuracy": ["Multiline", ["train/acc", "val/acc"]],
            "loss": ["Multiline", ["train/loss", "val/loss"]],
            "macro figures": ["Multiline", ["val/(.*/)?acc_balanced", r"val/(.*/)?\w+_macro"]],
        },
        "stages": {
            "stage": ["Multiline", ["stage/index"]],
            "rates": ["Multiline", [f"lr/{group.name}" for group in plan.groups]],
            "trainable parameters": ["Multiline", ["stage/trainable_parameters"]],
            "images per second": ["Multiline", ["train/images_per_second"]],
        },
    }
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(layout)


def log_pictures(trainer: Trainer, pictures: Sequence[Picture]) -> None:
    """Show the pictures of a run in TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for picture in pictures:
                logger.experiment.add_figure(picture.name, picture.figure, trainer.global_step, close=False)
            logger.save()
