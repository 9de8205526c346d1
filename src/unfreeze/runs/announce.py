"""What a run says of itself before it trains, and what it tells its loggers when it has ended."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze.config.overrides import override_key
from unfreeze.config.schema import Config

if TYPE_CHECKING:
    from lightning import Trainer

    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.data.store.store import ImageStore
    from unfreeze.evaluation.pictures.gallery import Picture
    from unfreeze.models.classifier import Classifier
    from unfreeze.training.plan.plan import Plan
    from unfreeze.training.precision.precision import Verdict

log = logging.getLogger("unfreeze.runs.announce")


def announce(
    config: Config,
    data: "ImageDataModule",
    classifier: "Classifier",
    plan: "Plan",
    trainer: "Trainer",
    verdict: "Verdict",
) -> None:
    """Say what is about to happen: data, model, plan, device."""
    from unfreeze.runs.estimate import forecast

    if not trainer.is_global_zero:
        return
    splits, store = data.splits, data.store
    cut = f" (cut from train: {' and '.join(splits.cut)}, data.seed {config.data.seed})" if splits.cut else ""
    log.info(
        f"  {data.source.name:<13} {len(splits.train):,} train · {len(splits.val):,} val · "
        f"{len(splits.test):,} test{cut} · {classifier.outputs} · {describe_pixels(store)}"
    )
    _report_data(data)
    if data.batch_size < config.data.batch_size:
        log.info(f"  {'':<13} data.batch_size reduced to {data.batch_size}, the number of training images")
    head = classifier.network.get_submodule(classifier.heads[0])
    matrices = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    shape = f"{type(head).__name__}({matrices[0].shape[1]}, {matrices[-1].shape[0]})"
    log.info(
        f"  {classifier.architecture:<13} {classifier.weights or 'random weights'} · "
        f"{classifier.preprocessing.crop_px} px · head {shape}"
    )
    if classifier.report is not None and classifier.report.unexpected:
        unexpected = classifier.report.unexpected
        log.info(f"  {'':<13} {len(unexpected)} entries of the weights had no place, such as {unexpected[0]}")
    log.info(forecast(config, plan, num_classes=len(classifier.classes), images=len(splits.train)))
    log.info(f"  {'device':<13} {trainer.num_devices} x {trainer.strategy.root_device.type} · {verdict}")
    _warn_of_equal_images(data)


def describe_pixels(store: "ImageStore") -> str:
    """Return where the decoded images are and how much they take."""
    nbytes = store.pixels.nbytes
    return f"{nbytes / 1e6:,.0f} MB {store.pixels.place}" if nbytes else store.pixels.place


def _report_data(data: "ImageDataModule") -> None:
    """Say what was left out, and which class has nothing to be judged by."""
    from unfreeze.data.sources.source import describe_alike

    source, unreadable = data.source, data.store.facts.unreadable
    if source.ignored:
        shown = ", ".join(source.ignored[:3]) + (", ..." if len(source.ignored) > 3 else "")
        log.info(f"  {'':<13} left out by name: {len(source.ignored):,}, {shown}")
    for note in source.notes:
        log.info(f"  {'':<13} {note}")
    for names in source.alike:
        log.warning(f"  ! {describe_alike(names)}")
    if unreadable:
        log.warning(f"  ! {len(unreadable):,} images can't be read and are left out; splits.json lists them")
    for split in ("val", "test"):
        missing = data.missing_classes(split)
        if missing:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            log.warning(f"  ! no {split} images of {shown}: nothing will be known of how these are recognised")


def _warn_of_equal_images(data: "ImageDataModule") -> None:
    import numpy as np

    from unfreeze.data.store.store import contradicting_images, shared_images

    splits = data.splits
    used = np.concatenate(list(splits.parts.values()))
    contradicting = contradicting_images(data.store, used, data.labels.numpy())
    if contradicting:
        log.warning(
            f"  ! {contradicting:,} images have an equal one, byte for byte, with another label; "
            "unfreeze audit names them"
        )
    for split in ("test", "val"):
        overlap = shared_images(data.store, splits.train, getattr(splits, split))
        if overlap:
            log.warning(f"  ! {overlap:,} {split} images are also in train, byte for byte; {split} figures flatter")


_NO_HYPERPARAMETERS = re.compile(r"(hydra|cache|logger|callbacks|report|resume|sweep|experiment|keep_best)\b")
"""Keys that say where a run goes and what is shown of it, not what it learns."""


def log_hyperparameters(trainer: "Trainer", config: Config, typed: Sequence[str], metrics: dict[str, float]) -> None:
    """Put the settings and the final metrics where TensorBoard's HParams compares runs."""
    from lightning.pytorch.loggers import TensorBoardLogger

    values = hyperparameters(config, typed)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(values, metrics)
            logger.log_metrics(metrics, step=trainer.global_step)
        else:
            logger.log_hyperparams(values)
        logger.save()


def hyperparameters(config: Config, typed: Sequence[str]) -> dict[str, float | str]:
    """Return what tells runs apart: the main choices, and every other value that was typed.

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


def log_layout(trainer: "Trainer", plan: "Plan") -> None:
    """Let TensorBoard group the curves: what was reached, what it cost, at which rates."""
    from lightning.pytorch.loggers import TensorBoardLogger

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


def log_pictures(trainer: "Trainer", pictures: "Sequence[Picture]") -> None:
    """Show the pictures of a run in TensorBoard."""
    from lightning.pytorch.loggers import TensorBoardLogger

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for picture in pictures:
                logger.experiment.add_figure(picture.name, picture.figure, trainer.global_step, close=False)
            logger.save()


def shown_path(path: Path) -> str:
    """Return a path as a person would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
