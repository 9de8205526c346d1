"""The objects of one run, and the request that the run writes before it starts."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.config.overrides import override_key
from unfreeze.config.schema import Config
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.image_data import ImageData
from unfreeze.data.store.store import shared_images
from unfreeze.models.classifier import Classifier
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.estimate import format_estimate
from unfreeze.system.files import write_json
from unfreeze.training.plan.plan import Plan
from unfreeze.training.precision.precision import Precision
from unfreeze.training.teacher import Teacher


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that a run needs, checked and loaded.

    Args:
        config: Checked values.
        typed: The overrides that were typed.
        plan: The stages and their rates.
        classifier: The network with its weights.
        data: Decoded images and their splits.
        precision: The number format.
        start_step: The optimizer step that a resumed run goes on from.
        teacher: The teacher of a distillation, and the images in its preprocessing; None without one.
    """

    config: Config
    typed: tuple[str, ...]
    plan: Plan
    classifier: Classifier
    data: ImageDataModule
    precision: Precision
    start_step: int = 0
    teacher: tuple[Teacher, ImageData] | None = None


def write_request(experiment: Experiment, raw: DictConfig, directory: RunDirectory) -> None:
    """Write the configuration, the overrides, the plan, the splits and the precision of a run."""
    directory.path.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(resolved_request(experiment, raw), directory.config_file)
    typed = [override for override in experiment.typed if override_key(override) != "resume"]
    OmegaConf.save(OmegaConf.create(typed), directory.overrides_file)
    data = experiment.data
    text = format_estimate(
        experiment.config, experiment.plan, num_classes=len(data.classes), images=len(data.splits.train)
    )
    write_json(directory.splits_file, experiment.data.describe_splits())
    write_json(directory.precision_file, experiment.precision.to_dict())
    directory.plan_file.write_text(text + "\n", encoding="utf-8")


def resolved_request(experiment: Experiment, raw: DictConfig) -> DictConfig:
    """Return the configuration of a run as config.yaml records it: resolved, without `resume`."""
    resolved = OmegaConf.create(OmegaConf.to_container(raw, resolve=True))
    assert isinstance(resolved, DictConfig)
    resolved.model.weights = experiment.config.model.weights
    resolved.resume = None
    return resolved


def describe_data(data: ImageData) -> dict[str, Any]:
    """Return the `data` part of result.json."""
    splits, store = data.splits, data.store
    return {
        "fingerprint": store.fingerprint,
        "train": len(splits.train),
        "val": len(splits.val),
        "test": len(splits.test),
        "unreadable": len(store.facts.unreadable),
        "also_in_train": {
            "val": shared_images(store, splits.train, splits.val),
            "test": shared_images(store, splits.train, splits.test),
        },
    }
