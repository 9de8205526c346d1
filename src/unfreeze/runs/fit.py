"""The composition root: from a configuration to objects, to a fit, to one test, to a result.

Everything that can be refused is refused by `prepare`, before a run has a directory.
"""

import gc
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unfreeze.config.overrides import check_not_empty, override_key
from unfreeze.config.schema import Config, parse_config
from unfreeze.errors import EndedEarlyError, Stopped, TrainingFailedError, UnfreezeError, first_line
from unfreeze.results.run_directory import best_of, checkpoints_of, last_of
from unfreeze.runs.announce import announce, log_hyperparameters, log_layout, log_pictures, shown_path
from unfreeze.runs.build.data import (
    build_data,
    build_module,
    build_source,
    build_teacher,
    check_by_catalog,
    check_trainer,
    count_images,
    cut_to_limits,
    decode,
    prefix_cache_options,
    resolve,
    trainer_arguments,
)
from unfreeze.runs.build.outputs import answers_of
from unfreeze.runs.build.precision import allow_tf32, bequeath, settle_compute, with_verdict
from unfreeze.runs.experiment import (
    Experiment,
    check_is_free,
    check_resumable,
    describe_data,
    identity_of,
    keep_request,
)
from unfreeze.runs.test import figures_of, load_weights, predict_splits, try_report
from unfreeze.sweeps.summary import UNENDED
from unfreeze.system.cores import ask_for_gpus_cheaply, limit_torch_threads, share_cores_among
from unfreeze.system.disk import DiskFullError
from unfreeze.system.files import release_room, reserve_room
from unfreeze.system.memory import keep_freed_pages
from unfreeze.system.ranks import is_first_process, is_rank
from unfreeze.system.signals import STOP

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from unfreeze.evaluation.result import RunResult
    from unfreeze.training.callbacks.recorder import RunRecorder
    from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
    from unfreeze.training.module import ImageClassifier

log = logging.getLogger("unfreeze.runs.fit")


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


def describe_plan(config: Config) -> str:
    """Return the plan of a configuration as text, without loading weights or decoding images."""
    from unfreeze.runs.estimate import forecast

    outputs, images = count_images(config)
    plan = cut_to_limits(config, resolve(config, outputs), images)
    return forecast(config, plan, num_classes=len(outputs), images=images)


def prepare(config: Config, raw: DictConfig, typed: Sequence[str], run_dir: Path | None = None) -> Experiment:
    """Check what needs looking at, then load weights and images.

    Args:
        config: Checked values.
        raw: What they were parsed from, for the callbacks and loggers in it.
        typed: The overrides that were typed.
        run_dir: Where the run will go, when that is known; must not hold a run, unless it is resumed.

    Raises:
        UnfreezeError: If anything is missing or does not fit.
    """
    if run_dir is not None and not config.resume:
        check_is_free(run_dir)
    check_by_catalog(config)
    from lightning import seed_everything

    from unfreeze.models.classifier import build_classifier

    trainer = check_trainer(config)
    share_cores_among(trainer.num_devices if is_rank() else 1)  # before Lightning starts ranks, this process is alone
    limit_torch_threads()
    _check_nodes(raw)
    source = build_source(config)
    outputs, _ = answers_of(config, source.tasks)
    plan = resolve(config, outputs)
    data = build_data(config, source)
    seed_everything(config.seed, verbose=False)
    classifier = build_classifier(
        config.model.spec,
        classes=outputs,
        weights=config.model.weights,
        head=config.head.spec(outputs),
        image_size=config.data.image_size,
    )
    if any(stage.solver for stage in plan.stages):
        from unfreeze.training.callbacks.head_solver import find_linear_head

        find_linear_head(classifier)
    decode(data, classifier.preprocessing)
    plan = cut_to_limits(config, plan, len(data.splits.train))
    classifier = replace(classifier, native_px=data.store.frame.native_px)
    teacher = build_teacher(config, source, data, outputs) if config.objective.name == "distill" else None
    device = trainer.strategy.root_device
    allow_tf32(config, device)  # as a probe in float32 and a run that it chooses for compute
    verdict = settle_compute(config, plan=plan, classifier=classifier, batch_size=data.batch_size, device=device)
    config = with_verdict(config, verdict)
    experiment = Experiment(config, tuple(typed), plan, classifier, data, verdict, teacher=teacher)
    if config.resume and run_dir is not None:
        return replace(experiment, start_step=check_resumable(experiment, raw, run_dir))
    return experiment


def execute(experiment: Experiment, raw: DictConfig, run_dir: Path, *, sweep: Path | None = None) -> float | None:
    """Fit, test once, and leave a result, whatever happens.

    Args:
        experiment: What `prepare` has checked and loaded.
        raw: What its values were parsed from.
        run_dir: Where the run goes.
        sweep: The folder of the sweep whose other runs will want the same features of a frozen backbone.

    Returns:
        The best monitored value.

    Raises:
        TrainingFailedError: If the loss is not finite, or nothing could be chosen.
        Stopped: After a signal.
    """
    started = time.monotonic()
    result = _begin_result(experiment, raw, run_dir)
    config, verdict = experiment.config, experiment.verdict
    module = build_module(config, experiment.classifier, experiment.data, channels_last=verdict.channels_last)
    stages, recorder, callbacks = _build_callbacks(experiment, run_dir, sweep=sweep)
    trainer = build_trainer(config, raw, run_dir, callbacks, start_step=experiment.start_step)
    _prepare_process(experiment, trainer)
    announce(config, experiment.data, experiment.classifier, experiment.plan, trainer, verdict)
    log_layout(trainer, experiment.plan)
    try:
        _fit(trainer, module, experiment, stages, run_dir)
        if not config.search:
            _test_once(trainer, module, experiment, result, run_dir, in_sweep=sweep is not None)
        result.status = "completed"
    except Stopped as stop:
        result.status, result.reason = "stopped", stop.signal_name
        raise
    except EndedEarlyError as end:
        result.status, result.reason = "stopped", f"{end}; not trained to the end: {stages.describe_remaining()}"
    except UnfreezeError as error:
        result.reason = str(error)
        result.can_go_on = not isinstance(error, TrainingFailedError)
        raise
    except BaseException as error:
        result.reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        STOP.deferring = True  # what follows takes a moment and leaves the run whole
        recorder.stop_clock()
        result.seconds = recorder.total_seconds
        result.take_training(recorder.history, recorder.stages, resumed=recorder.resumed)
        _finish(experiment, trainer, result, recorder, run_dir, in_sweep=sweep is not None, started=started)
        STOP.deferring = False
    return result.best_score


def _begin_result(experiment: Experiment, raw: DictConfig, run_dir: Path) -> "RunResult":
    """Write what was asked, and a result that holds should the process be killed."""
    from unfreeze.evaluation.result import RunResult
    from unfreeze.training.callbacks.recorder import write_json

    result = RunResult(
        monitor=experiment.config.monitor,
        mode=experiment.config.monitor_mode,
        seed=experiment.config.seed,
        overrides=list(experiment.typed),
        data=describe_data(experiment.data),
        compute=experiment.verdict.to_dict(),
    )
    if is_first_process():
        keep_request(experiment, raw, run_dir)
        reserve_room(run_dir)
        write_json(run_dir / "result.json", result.to_dict() | {"status": "stopped", "reason": UNENDED})
    return result


def _prepare_process(experiment: Experiment, trainer: "Trainer") -> None:
    """Set what holds for this process and the ranks that it starts: memory and precision."""
    device = trainer.strategy.root_device
    if device.type == "cpu":
        ask_for_gpus_cheaply()
        if experiment.data.store.pixels.fits_in_memory:
            keep_freed_pages()
    if trainer.world_size > 1:
        bequeath(experiment.verdict)


def _fit(
    trainer: "Trainer",
    module: "ImageClassifier",
    experiment: Experiment,
    stages: "StagedUnfreezing",
    run_dir: Path,
) -> None:
    """Train all stages, from the last checkpoint where there is one.

    Raises:
        TrainingFailedError: If no checkpoint could be chosen.
        EndedEarlyError: If the fit ended before the plan did.
    """
    last = last_of(run_dir)
    try:
        trainer.fit(module, experiment.data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except TrainingFailedError as error:
        raise TrainingFailedError(f"{error}. {_advise_after(run_dir)}") from None
    if not stages.complete:
        raise EndedEarlyError("trainer.should_stop was set by a callback")
    if not best_of(run_dir).is_file():
        raise TrainingFailedError(f"{experiment.config.monitor} was never a finite number; no checkpoint was chosen")


def _advise_after(run_dir: Path) -> str:
    """Return what to type after a loss that is not finite; a resume would meet it again."""
    lower = "a lower rate (strategy.lr.head=1e-4) or trainer.gradient_clip_val=1.0"
    if not best_of(run_dir).is_file():
        return f"No checkpoint was written; start a new run with {lower}"
    weights = f"model.weights={shown_path(best_of(run_dir))}"
    return f"To train on from the best weights, start a new run with {weights} and {lower}"


def _test_once(
    trainer: "Trainer",
    module: "ImageClassifier",
    experiment: Experiment,
    result: "RunResult",
    run_dir: Path,
    *,
    in_sweep: bool,
) -> None:
    """Evaluate the best checkpoint; the jobs of a sweep are tested alone, their winner is looked at more closely."""
    from unfreeze.evaluation.predictions import PREDICTIONS_FILE

    load_weights(module, best_of(run_dir))
    splits: list[Literal["val", "test"]] = ["test"] if experiment.config.test else []
    if not in_sweep:
        splits.insert(0, "val")
    kept = predict_splits(trainer, module, experiment.data, splits)
    if trainer.is_global_zero:
        result.take_predictions(kept.temperatures, figures_of(kept, "test"))
        kept.save(run_dir / PREDICTIONS_FILE)


def _finish(
    experiment: Experiment,
    trainer: "Trainer",
    result: "RunResult",
    recorder: "RunRecorder",
    run_dir: Path,
    *,
    in_sweep: bool,
    started: float,
) -> None:
    """Write the result, then the loggers' final metrics and the report as far as the disk has room; show the result."""
    from unfreeze.evaluation.report.explain import REPORT_FILE
    from unfreeze.training.callbacks.recorder import write_json

    config = experiment.config
    if not config.search:
        result.judge_trust(planned_epochs=experiment.plan.epochs, chosen=chosen_by_validation(config))
    if not trainer.is_global_zero:
        return
    release_room(run_dir)
    write_json(run_dir / "result.json", result.to_dict())
    is_reported = config.report and not in_sweep
    try:
        if recorder.history:
            recorder.write()
        log_hyperparameters(trainer, config, experiment.typed, result.hyperparameter_metrics())
        if is_reported:
            data = experiment.data if result.status == "completed" else None
            log_pictures(trainer, try_report(run_dir, data, trainer.strategy.root_device))
    except (OSError, DiskFullError) as error:
        log.warning(f"  ! {error}")
    page = shown_path(run_dir / REPORT_FILE if is_reported else run_dir)
    for line in result.summary(shown_path(run_dir), page=page, total_seconds=time.monotonic() - started):
        log.info(line)


def chosen_by_validation(config: Config) -> tuple[str, ...]:
    """Return what validation chooses in a run beside the epoch, in words."""
    chosen = []
    if any(stage.solver for stage in config.strategy.stages):
        chosen.append("the L2 strength of the head")
    if config.objective.name == "multilabel":
        chosen.append("a threshold per label")
    return tuple(chosen)


def run_job(
    raw: DictConfig,
    typed: Sequence[str],
    run_dir: Path,
    experiment: Experiment | None = None,
    *,
    sweep: Path | None = None,
) -> float | None:
    """Prepare unless that was done, and execute; one line for what a person can mend.

    Raises:
        UnfreezeError: For a job of a multirun that can't be prepared.
    """
    gc.freeze()  # what is there before a job stays, and need not be looked through after it
    try:
        if experiment is None:
            experiment = prepare(check_values(raw, typed), raw, typed, run_dir)
        return execute(experiment, raw, run_dir, sweep=sweep)
    finally:
        del experiment
        gc.collect()
        gc.unfreeze()


def build_trainer(
    config: Config, raw: DictConfig, run_dir: Path, callbacks: Sequence["Callback"], *, start_step: int = 0
) -> "Trainer":
    """Return a Trainer that writes into a run's directory, and set the arithmetic of its device."""
    from hydra.utils import instantiate
    from lightning import Trainer

    from unfreeze.training.callbacks.checkpointing import BestCheckpoint, CheckpointFiles, LastCheckpoint
    from unfreeze.training.callbacks.seeding import SeededSteps
    from unfreeze.training.plan.limits import parse_max_time
    from unfreeze.training.unprofiled import Unprofiled

    folder = checkpoints_of(run_dir)
    max_time = parse_max_time(config.trainer.get("max_time"))
    extra = [instantiate(node) for node in (raw.callbacks or {}).values() if node is not None]
    best = BestCheckpoint(folder, monitor=config.monitor, mode=config.monitor_mode, keep=config.keep_best)
    trainer = Trainer(
        **{"profiler": Unprofiled(), "plugins": [CheckpointFiles()], **trainer_arguments(config)},
        callbacks=[*callbacks, SeededSteps(config.seed), *extra, best, LastCheckpoint(folder, max_time=max_time)],
        logger=_build_loggers(raw, run_dir, start_step),
        default_root_dir=run_dir,
    )
    allow_tf32(config, trainer.strategy.root_device)
    return trainer


def _without_weights_from_scratch(values: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Let `strategy=scratch` imply random weights, unless others were typed beside it."""
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


def _check_nodes(raw: DictConfig) -> None:
    """Refuse callbacks and loggers that can't be made."""
    from pkgutil import resolve_name

    from hydra.utils import instantiate
    from lightning import Callback

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


def _build_callbacks(
    experiment: Experiment, run_dir: Path, *, sweep: Path | None
) -> "tuple[StagedUnfreezing, RunRecorder, list[Callback]]":
    """Return the callback that carries out the plan, the one that keeps the record, and all of the run's callbacks."""
    from unfreeze.training.callbacks.recorder import RunRecorder
    from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
    from unfreeze.training.features.kept_features import JudgeByKeptFeatures
    from unfreeze.training.features.prefix_cache import FrozenPrefixCache

    config = experiment.config
    stages = StagedUnfreezing(experiment.plan, monitor=config.monitor, mode=config.monitor_mode)
    recorder = RunRecorder(run_dir, stages, identity=identity_of(experiment), in_sweep=sweep is not None)
    callbacks: list[Callback] = [stages, recorder]
    if config.cache.enabled:
        options = prefix_cache_options(config.cache, sweep=sweep)
        callbacks.append(FrozenPrefixCache(stages, options=options, on_ready=recorder.note_cache))
        callbacks.append(JudgeByKeptFeatures(options))
    if experiment.teacher is not None:
        from unfreeze.training.callbacks.teacher import TeacherAnswers

        kept = prefix_cache_options(config.cache, sweep=sweep) if config.cache.enabled else None
        callbacks.append(
            TeacherAnswers(
                *experiment.teacher,
                stages,
                on_features=config.objective.match == "features",
                outputs=experiment.classifier.outputs,
                options=kept,
            )
        )
    if any(stage.solver for stage in experiment.plan.stages):
        from unfreeze.training.callbacks.head_solver import HeadSolver

        callbacks.append(HeadSolver(stages, on_solved=recorder.note_solution))
    if config.trainer.get("compile"):
        from unfreeze.training.callbacks.compiling import CompiledStages

        callbacks.append(CompiledStages(stages))
    return stages, recorder, callbacks


def _build_loggers(raw: DictConfig, run_dir: Path, start_step: int) -> "list[Logger] | bool":
    from hydra.utils import instantiate

    loggers = []
    for node in (node for node in (raw.logger or {}).values() if node is not None):
        # TensorBoard drops what a killed run had logged beyond the checkpoint, from this step on.
        purge = {"purge_step": start_step + 1} if start_step and "TensorBoard" in node["_target_"] else {}
        loggers.append(instantiate(node, save_dir=str(run_dir), **purge))
    return loggers or False
