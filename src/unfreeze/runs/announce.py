"""The lines that a run prints before it trains: data, model, plan, device."""

import logging

import numpy as np
from lightning import Trainer

from unfreeze.data.image_data import ImageData
from unfreeze.data.sources.source import describe_similar_names
from unfreeze.data.store.store import ImageStore, contradicting_images, shared_images
from unfreeze.models.classifier import Classifier
from unfreeze.runs.estimate import format_estimate
from unfreeze.runs.experiment import Experiment

log = logging.getLogger("unfreeze.runs.announce")


def announce(experiment: Experiment, trainer: Trainer) -> None:
    """Print the data, the model, the plan and the device of a run, on its first rank."""
    if not trainer.is_global_zero:
        return
    config, data, classifier = experiment.config, experiment.data, experiment.classifier
    splits = data.splits
    own = (
        f" (held out from train: {' and '.join(splits.from_train)}, data.seed {config.data.seed})"
        if splits.from_train
        else ""
    )
    log.info(
        f"  {data.source.name:<13} {len(splits.train):,} train · {len(splits.val):,} val · "
        f"{len(splits.test):,} test{own} · {classifier.outputs} · {describe_pixels(data.store)}"
    )
    _describe_data(data)
    if data.batch_size < config.data.batch_size:
        log.info(f"  {'':<13} data.batch_size reduced to {data.batch_size}, the number of training images")
    _describe_model(classifier)
    log.info(format_estimate(config, experiment.plan, num_classes=len(classifier.classes), images=len(splits.train)))
    device = trainer.strategy.root_device.type
    log.info(f"  {'device':<13} {trainer.num_devices} x {device} · {experiment.precision}")
    _warn_of_equal_images(data)


def _describe_model(classifier: Classifier) -> None:
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


def describe_pixels(store: ImageStore) -> str:
    """Return where the decoded images are and how much they take."""
    nbytes = store.pixels.nbytes
    return f"{nbytes / 1e6:,.0f} MB {store.pixels.place}" if nbytes else store.pixels.place


def _describe_data(data: ImageData) -> None:
    """Log ignored files, unreadable images, and classes without validation or test images."""
    source, unreadable = data.source, data.store.facts.unreadable
    if source.ignored:
        shown = ", ".join(source.ignored[:3]) + (", ..." if len(source.ignored) > 3 else "")
        log.info(f"  {'':<13} left out by name: {len(source.ignored):,}, {shown}")
    for note in source.notes:
        log.info(f"  {'':<13} {note}")
    for names in source.similar_class_names:
        log.warning(f"  ! {describe_similar_names(names)}")
    if unreadable:
        log.warning(f"  ! {len(unreadable):,} images can't be read and are left out; splits.json lists them")
    for split in ("val", "test"):
        missing = data.missing_classes(split)
        if missing:
            shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            log.warning(f"  ! no {split} images of {shown}: their metrics are unknown")


def _warn_of_equal_images(data: ImageData) -> None:
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
            log.warning(
                f"  ! {overlap:,} {split} images are also in train, byte for byte; {split} metrics are too high"
            )
