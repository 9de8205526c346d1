"""Everything that a run needs, checked and loaded before the run has a directory."""

from collections.abc import Sequence
from dataclasses import replace

from lightning import Trainer, seed_everything
from omegaconf import DictConfig

from unfreeze.config.schema import Config
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.models.classifier import Classifier, build_classifier, find_linear_head
from unfreeze.models.outputs import Outputs
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.data import build_data, decode
from unfreeze.runs.builders.objective import build_teacher
from unfreeze.runs.builders.outputs import outputs_of
from unfreeze.runs.builders.plan import build_plan, cut_to_limits
from unfreeze.runs.builders.precision import allow_tf32, find_precision, with_precision
from unfreeze.runs.builders.source import build_source
from unfreeze.runs.builders.trainer import check_nodes, check_trainer
from unfreeze.runs.experiment import Experiment, resolved_request
from unfreeze.runs.resume import check_resumable
from unfreeze.system.cores import limit_torch_threads, share_cores_among
from unfreeze.system.ranks import is_rank
from unfreeze.training.plan.plan import Plan


def prepare(config: Config, raw: DictConfig, typed: Sequence[str], directory: RunDirectory | None = None) -> Experiment:
    """Check what needs torch and the images, and load weights and images.

    Args:
        config: Checked values.
        raw: The configuration that they were parsed from, for its callbacks and loggers.
        typed: The overrides that were typed.
        directory: Where the run will go, if that is known; must not hold a run, unless it is resumed.

    Raises:
        UnfreezeError: If anything is missing or does not fit.
    """
    if directory is not None and not config.resume:
        directory.check_is_free()
    trainer = _prepare_trainer(config, raw)
    experiment = _load(config, typed, trainer)
    if config.resume and directory is not None:
        return replace(experiment, start_step=check_resumable(experiment, resolved_request(experiment, raw), directory))
    return experiment


def _prepare_trainer(config: Config, raw: DictConfig) -> Trainer:
    trainer = check_trainer(config)
    share_cores_among(trainer.num_devices if is_rank() else 1)  # before Lightning starts ranks, this process is alone
    limit_torch_threads()
    check_nodes(raw)
    return trainer


def _load(config: Config, typed: Sequence[str], trainer: Trainer) -> Experiment:
    source = build_source(config)
    outputs, _ = outputs_of(config, source.tasks)
    plan = build_plan(config, outputs)
    data = build_data(ImageDataModule, config, source)
    classifier = _build_classifier(config, outputs, plan)
    decode(data, classifier.preprocessing)
    plan = cut_to_limits(config, plan, len(data.splits.train))
    classifier = replace(classifier, native_px=data.store.frame.native_px)
    device = trainer.strategy.root_device
    precision = find_precision(config, classifier=classifier, device=device)
    config = with_precision(config, precision)
    allow_tf32(config, device)
    teacher = build_teacher(config, source, data, outputs) if config.objective.name == "distill" else None
    return Experiment(config, tuple(typed), plan, classifier, data, precision, teacher=teacher)


def _build_classifier(config: Config, outputs: Outputs, plan: Plan) -> Classifier:
    seed_everything(config.seed, verbose=False)
    classifier = build_classifier(
        config.model.spec,
        classes=outputs,
        weights=config.model.weights,
        head=config.head.spec(outputs),
        image_size=config.data.image_size,
    )
    if any(stage.solver for stage in plan.stages):
        find_linear_head(classifier)
    return classifier
