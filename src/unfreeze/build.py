"""From a configuration to objects."""

import logging
from typing import TYPE_CHECKING, Any

from unfreeze.config import Config, DataConfig
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.data.sources import ImageSource
    from unfreeze.models.backbones import Architecture
    from unfreeze.models.classifier import Classifier
    from unfreeze.models.preprocessing import Preprocessing
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.plan import Plan


def build_source(data: DataConfig) -> "ImageSource":
    """Return the labelled images that a configuration names."""
    from unfreeze.data.sources import cifar10_source, digits_source, folder_source

    match data.name:
        case "imagefolder":
            assert data.root is not None
            return folder_source(data.root)
        case "cifar10":
            return cifar10_source(data.root or "data", download=data.download)
        case "digits":
            return digits_source()


def class_count(data: DataConfig) -> int:
    """Return the number of classes, without downloading anything for it."""
    return 10 if data.name == "cifar10" else len(build_source(data).classes)


def build_data(config: Config, source: "ImageSource") -> "ImageDataModule":
    """Return the data module of a configuration, its images not yet decoded."""
    from unfreeze.data.datamodule import ImageDataModule

    return ImageDataModule(
        source,
        batch_size=config.data.batch_size,
        val_fraction=config.data.val_fraction,
        test_fraction=config.data.test_fraction,
        fraction=config.data.fraction,
        split_seed=config.data.seed,
        seed=config.seed,
        workers=config.data.num_workers or None,
    )


def build_module(config: Config, classifier: "Classifier") -> "ImageClassifier":
    """Return the LightningModule of a configuration."""
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.param_groups import OptimizerSpec

    return ImageClassifier(
        classifier,
        optimizer=OptimizerSpec(
            name=config.optimizer.name,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        ),
        augment=config.augment.name,
        mirror=config.data.mirror,
        label_smoothing=config.objective.label_smoothing,
        seed=config.seed,
    )


def resolve(config: Config, num_classes: int) -> "Plan":
    """Return the plan of a configuration, without loading weights.

    Raises:
        UnfreezeError: If model, weights, image size or stages are not to be had.
    """
    from unfreeze.models.backbones import find_architecture
    from unfreeze.models.classifier import check_image_size, group_sizes
    from unfreeze.models.weights import resolve_weights
    from unfreeze.training.plan import Group, Rates, Stage, resolve_plan

    architecture: Architecture = find_architecture(config.model.name)
    resolve_weights(architecture, config.model.weights)
    if config.data.image_size is not None:
        check_image_size(config.model.name, config.data.image_size)
    strategy = config.strategy
    return resolve_plan(
        [Stage(**stage.model_dump(exclude={"lr"}), lr=_stage_lr(stage.lr)) for stage in strategy.stages],
        [Group(name, parameters) for name, parameters in group_sizes(config.model.name, num_classes)],
        rates=Rates(**strategy.lr.model_dump()),
        schedule=config.optimizer.schedule,
        optimizer=config.optimizer.name,
        restore=strategy.restore,
        frozen_norm=strategy.frozen_norm,
        architecture=config.model.name,
    )


def decode(data: "ImageDataModule", preprocessing: "Preprocessing") -> None:
    """Decode all images, with a bar in a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("  decoding", total=len(data.source.images))
        data.build_store(
            preprocessing.resize_px,
            lambda done: progress.update(task, completed=done),
            interpolation=preprocessing.interpolation,
        )


def trainer_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of a Trainer, but for its callbacks and loggers."""
    arguments = {key: value for key, value in config.trainer.items() if value is not None}
    arguments |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    arguments["max_epochs"] = min(config.trainer.get("max_epochs") or 10**6, _most_epochs(config))
    if not (config.callbacks or {}).get("progress"):
        arguments["enable_progress_bar"] = False
    return arguments


def check_trainer(config: Config) -> None:
    """Let Lightning look at its arguments before anything is loaded."""
    from lightning import Trainer

    # Set when Lightning is there, which chooses INFO for itself: what it would say, `announce` says.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        Trainer(**{**trainer_arguments(config), "logger": False, "enable_checkpointing": False})
    except Exception as error:
        raise UnfreezeError(f"trainer: {str(error).strip().splitlines()[0]}") from None


def _stage_lr(lr: Any) -> Any:
    return lr.model_dump(exclude_none=True) if hasattr(lr, "model_dump") else lr


def _most_epochs(config: Config) -> int:
    return sum(stage.epochs for stage in config.strategy.stages)
