"""One run: what it consists of, what it writes down before it starts, and what a resume must find unchanged."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.config.overrides import override_key
from unfreeze.config.schema import Config
from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import last_of
from unfreeze.runs.announce import shown_path
from unfreeze.runs.build.precision import COMPUTE_FILE
from unfreeze.runs.resume import check_unchanged

if TYPE_CHECKING:
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.models.classifier import Classifier
    from unfreeze.training.callbacks.teacher import Teacher
    from unfreeze.training.plan.plan import Plan
    from unfreeze.training.precision.precision import Verdict


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that a run needs, checked and loaded.

    Args:
        config: What was asked for.
        typed: The overrides it was asked with.
        plan: What trains when.
        classifier: The network with its weights.
        data: Decoded images and their splits.
        verdict: In which precision and memory layout it trains.
        start_step: The optimizer step that a resumed run goes on from.
        teacher: Who answers beside the labels, and the images as it sees them; None for nobody.
    """

    config: Config
    typed: tuple[str, ...]
    plan: "Plan"
    classifier: "Classifier"
    data: "ImageDataModule"
    verdict: "Verdict"
    start_step: int = 0
    teacher: "tuple[Teacher, ImageDataModule] | None" = None


def holds_run(folder: Path) -> bool:
    """Return whether a run has been written into a folder."""
    return any((folder / name).exists() for name in ("config.yaml", "result.json", "checkpoints"))


def check_is_free(run_dir: Path) -> None:
    """Refuse a directory that holds a run, or that can't be made.

    Raises:
        UnfreezeError: If it does, or can't.
    """
    if holds_run(run_dir):
        raise UnfreezeError(
            f"hydra.run.dir: {str(run_dir)!r} holds a run; type resume={shown_path(run_dir)} to go on with it, "
            "or name another directory"
        )
    parent = next(folder for folder in [run_dir, *run_dir.parents] if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UnfreezeError(
            f"hydra.run.dir: can't make {str(run_dir)!r}, since {str(parent)!r} is not a folder to write in"
        )


def keep_request(experiment: Experiment, raw: DictConfig, run_dir: Path) -> None:
    """Write what was asked and what will be done."""
    from unfreeze.runs.estimate import forecast
    from unfreeze.training.callbacks.recorder import write_json

    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(_resolved_request(experiment, raw), run_dir / "config.yaml")
    typed = [override for override in experiment.typed if override_key(override) != "resume"]
    OmegaConf.save(OmegaConf.create(typed), run_dir / "overrides.yaml")
    data = experiment.data
    text = forecast(experiment.config, experiment.plan, num_classes=len(data.classes), images=len(data.splits.train))
    write_json(run_dir / "splits.json", experiment.data.describe_splits())
    write_json(run_dir / COMPUTE_FILE, experiment.verdict.to_dict())
    (run_dir / "plan.txt").write_text(text + "\n", encoding="utf-8")


def _resolved_request(experiment: Experiment, raw: DictConfig) -> DictConfig:
    kept = OmegaConf.create(OmegaConf.to_container(raw, resolve=True))
    assert isinstance(kept, DictConfig)
    kept.model.weights = experiment.config.model.weights
    kept.resume = None
    return kept


def describe_data(data: "ImageDataModule") -> dict[str, Any]:
    """Return what result.json says of the data."""
    from unfreeze.data.store.store import shared_images

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


def check_resumable(experiment: Experiment, raw: DictConfig, run_dir: Path) -> int:
    """Refuse to go on with another plan, other data, another model or other settings; return the step to go on from."""
    from unfreeze.models.checkpoint import read_checkpoint
    from unfreeze.training.callbacks.recorder import check_identity
    from unfreeze.training.plan.plan import Plan, plan_differences

    last = last_of(run_dir)
    if not last.is_file():
        return 0
    try:
        checkpoint = read_checkpoint(last)
    except UnfreezeError as error:
        raise UnfreezeError(f"resume: {error}; {_other_checkpoint(last)}") from None
    callbacks = checkpoint["callbacks"]
    check_identity(callbacks["RunRecorder"]["identity"], identity_of(experiment))
    check_unchanged(run_dir, _resolved_request(experiment, raw))
    saved = Plan.from_dict(callbacks["StagedUnfreezing"]["plan"])
    if saved != experiment.plan:
        raise UnfreezeError(
            f"resume: the plan has changed: {'; '.join(plan_differences(saved, experiment.plan))}. "
            "Resume without these overrides, or start a new run"
        )
    return int(checkpoint["global_step"])


def _other_checkpoint(last: Path) -> str:
    """Return how to go on where the last checkpoint is broken: from the newest other one that is whole."""
    from unfreeze.models.checkpoint import read_checkpoint

    others = [file for file in last.parent.glob("*.ckpt") if file != last]
    for file in sorted(others, key=lambda each: -each.stat().st_mtime):
        with suppress(UnfreezeError, KeyError):
            checkpoint = read_checkpoint(file)
            return (
                f"{file.name} beside it is whole, of epoch {checkpoint['epoch'] + 1}: copy it to {last} and type "
                f"resume={last.parents[1]} again, which repeats what came after it"
            )
    return "no other checkpoint is whole; start a new run"


def identity_of(experiment: Experiment) -> dict[str, Any]:
    """Return what must be the same when a run is resumed, beside its plan and its settings: what these have come to."""
    config = experiment.config
    described = experiment.data.describe_splits()["splits"]
    return {
        "data.fingerprint": experiment.data.store.fingerprint,
        **{f"the images of {name}": split["hash"] for name, split in described.items()},
        "data.batch_size": experiment.data.batch_size,
        "data.image_size": experiment.classifier.preprocessing.crop_px,
        "model.name": experiment.classifier.architecture,
        "channels_last": experiment.verdict.channels_last,
        "trainer.precision": config.trainer.get("precision"),
    }
