"""One run: fit all stages, test the best checkpoint once, leave a result."""

import gc
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from unfreeze.config.schema import Config
from unfreeze.config.values import check_values
from unfreeze.errors import EndedEarlyError, Stopped, TrainingFailedError, UnfreezeError
from unfreeze.evaluation.metrics import metrics_of
from unfreeze.evaluation.warnings import find_warnings
from unfreeze.results.result import UNFINISHED, RunResult
from unfreeze.results.run_directory import RunDirectory
from unfreeze.results.summary import format_result
from unfreeze.runs.announce import announce
from unfreeze.runs.builders.callbacks import build_callbacks
from unfreeze.runs.builders.module import build_module
from unfreeze.runs.builders.trainer import build_trainer
from unfreeze.runs.experiment import Experiment, describe_data, write_request
from unfreeze.runs.loggers import log_hyperparameters, log_layout, log_pictures
from unfreeze.runs.prepare import prepare
from unfreeze.runs.report import try_report
from unfreeze.runs.test import load_weights, predict_splits
from unfreeze.system.cores import skip_nvml_check
from unfreeze.system.disk import DiskFullError
from unfreeze.system.files import shown_path
from unfreeze.system.memory import keep_freed_pages
from unfreeze.system.ranks import is_first_process
from unfreeze.system.signals import STOP

log = logging.getLogger("unfreeze.runs.fit")


def run_job(
    raw: DictConfig,
    typed: Sequence[str],
    directory: RunDirectory,
    experiment: Experiment | None = None,
    *,
    sweep: Path | None = None,
) -> float | None:
    """Prepare the experiment unless that was done, and run it.

    Args:
        raw: The composed configuration.
        typed: The overrides that were typed.
        directory: Where the run goes.
        experiment: What `prepare` returned; None to prepare it here.
        sweep: The folder of the sweep that the run belongs to.

    Returns:
        The best monitored value.

    Raises:
        UnfreezeError: If the run can't be prepared, or fails.
    """
    gc.freeze()  # objects from before the job survive it, so collections need not visit them
    try:
        if experiment is None:
            experiment = prepare(check_values(raw, typed), raw, typed, directory)
        return RunExecution(experiment, raw, directory, sweep=sweep).run()
    finally:
        del experiment
        gc.collect()
        gc.unfreeze()


class RunExecution:
    """One run, from its request on disk to its result.

    Args:
        experiment: What `prepare` has checked and loaded.
        raw: The configuration that its values were parsed from.
        directory: Where the run goes.
        sweep: The folder of the sweep whose other runs use the same features of a frozen backbone.
    """

    def __init__(
        self, experiment: Experiment, raw: DictConfig, directory: RunDirectory, *, sweep: Path | None = None
    ) -> None:
        self._started = time.monotonic()
        self._experiment = experiment
        self._config = experiment.config
        self._directory = directory
        self._in_sweep = sweep is not None
        self._result = self._begin_result(raw)
        callbacks = build_callbacks(experiment, directory, sweep=sweep)
        self._stages, self._recorder = callbacks.stages, callbacks.recorder
        self._module = build_module(
            experiment.config,
            experiment.classifier,
            experiment.data,
            channels_last=experiment.precision.channels_last,
            teacher=callbacks.targets,
        )
        self._trainer = build_trainer(
            experiment.config, raw, directory, callbacks.ordered, start_step=experiment.start_step
        )

    def run(self) -> float | None:
        """Fit, test once, and leave a result, also after a failure or a signal.

        Returns:
            The best monitored value.

        Raises:
            TrainingFailedError: If the loss is not finite, or no checkpoint could be chosen.
            Stopped: After a signal.
        """
        self._prepare_process()
        announce(self._experiment, self._trainer)
        log_layout(self._trainer, self._experiment.plan)
        result = self._result
        try:
            self._fit()
            if not self._config.search:
                self._test_once()
            result.status = "completed"
        except Stopped as stop:
            result.status, result.reason = "stopped", stop.signal_name
            raise
        except EndedEarlyError as end:
            remaining = self._stages.describe_remaining()
            result.status, result.reason = "stopped", f"{end}; not trained to the end: {remaining}"
        except UnfreezeError as error:
            result.reason = str(error)
            result.can_go_on = not isinstance(error, TrainingFailedError)
            raise
        except BaseException as error:
            result.reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            STOP.deferring = True  # the rest takes a moment and leaves the run whole
            self._finish()
            STOP.deferring = False
        return result.best_score

    def _begin_result(self, raw: DictConfig) -> RunResult:
        """Write the request, and a result that holds if the process is killed."""
        experiment = self._experiment
        result = RunResult(
            monitor=self._config.monitor,
            mode=self._config.monitor_mode,
            seed=self._config.seed,
            overrides=list(experiment.typed),
            data=describe_data(experiment.data),
            compute=experiment.precision.to_dict(),
        )
        if is_first_process():
            write_request(experiment, raw, self._directory)
            self._directory.reserve_space()
            self._directory.write_result(result.to_dict() | {"status": "stopped", "reason": UNFINISHED})
        return result

    def _prepare_process(self) -> None:
        """Set memory and GPU queries of this process for training on the CPU."""
        if self._trainer.strategy.root_device.type == "cpu":
            skip_nvml_check()
            if self._experiment.data.store.pixels.fits_in_memory:
                keep_freed_pages()

    def _fit(self) -> None:
        """Train all stages, from the last checkpoint where there is one.

        Raises:
            TrainingFailedError: If no checkpoint could be chosen.
            EndedEarlyError: If the fit ended before the plan did.
        """
        last, best = self._directory.last, self._directory.best
        try:
            self._trainer.fit(
                self._module, self._experiment.data, ckpt_path=last if last.is_file() else None, weights_only=True
            )
        except TrainingFailedError as error:
            raise TrainingFailedError(f"{error}. {_advise_after_failure(best)}") from None
        if not self._stages.complete:
            raise EndedEarlyError("trainer.should_stop was set by a callback")
        if not best.is_file():
            raise TrainingFailedError(f"{self._config.monitor} was never a finite number; no checkpoint was chosen")

    def _test_once(self) -> None:
        """Evaluate the best checkpoint on the test split, and outside a sweep on validation for the report."""
        load_weights(self._module, self._directory.best)
        splits: list[Literal["val", "test"]] = ["test"] if self._config.test else []
        if not self._in_sweep:
            splits.insert(0, "val")
        predictions = predict_splits(self._trainer, self._module, self._experiment.data, splits)
        if self._trainer.is_global_zero:
            self._result.set_test(predictions.temperatures, metrics_of(predictions, "test"))
            predictions.save(self._directory.predictions_file)

    def _finish(self) -> None:
        """Write the result, then final metrics and the report as far as the disk has room; print the summary."""
        result, recorder = self._result, self._recorder
        recorder.stop_clock()
        result.seconds = recorder.total_seconds
        result.set_training(recorder.history, recorder.stages, resumed=recorder.resumed)
        if not self._config.search:
            result.warnings = find_warnings(
                result.to_dict(),
                epochs=result.epochs,
                planned_epochs=self._experiment.plan.epochs,
                train_acc=result.train_acc,
                chosen=chosen_by_validation(self._config),
            )
        if not self._trainer.is_global_zero:
            return
        self._directory.release_space()
        self._directory.write_result(result.to_dict())
        is_reported = self._config.report and not self._in_sweep
        try:
            self._write_report(is_reported=is_reported)
        except (OSError, DiskFullError) as error:
            log.warning(f"  ! {error}")
        page = shown_path(self._directory.report_file if is_reported else self._directory.path)
        seconds = time.monotonic() - self._started
        for line in format_result(result, shown_path(self._directory.path), page=page, total_seconds=seconds):
            log.info(line)

    def _write_report(self, *, is_reported: bool) -> None:
        if self._recorder.history:
            self._recorder.write()
        metrics = self._result.hyperparameter_metrics()
        log_hyperparameters(self._trainer, self._config, self._experiment.typed, metrics)
        if is_reported:
            data = self._experiment.data if self._result.status == "completed" else None
            log_pictures(self._trainer, try_report(self._directory, data, self._trainer.strategy.root_device))


def _advise_after_failure(best: Path) -> str:
    """Return what to type after a loss that is not finite; a resume would meet it again."""
    lower = "a lower rate (strategy.lr.head=1e-4) or trainer.gradient_clip_val=1.0"
    if not best.is_file():
        return f"No checkpoint was written; start a new run with {lower}"
    weights = f"model.weights={shown_path(best)}"
    return f"To train on from the best weights, start a new run with {weights} and {lower}"


def chosen_by_validation(config: Config) -> tuple[str, ...]:
    """Return what a run chooses by validation beside the epoch, in words."""
    chosen = []
    if any(stage.solver for stage in config.strategy.stages):
        chosen.append("the L2 strength of the head")
    if config.objective.name == "multilabel":
        chosen.append("a threshold per label")
    return tuple(chosen)
