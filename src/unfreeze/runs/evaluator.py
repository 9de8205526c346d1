"""Models evaluated on the images of a run that has ended, as the run evaluated its own."""

from dataclasses import asdict

from omegaconf import OmegaConf

from unfreeze.evaluation.metrics import metrics_of
from unfreeze.evaluation.record import read_record
from unfreeze.evaluation.warnings import find_warnings
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.results.lock import owned
from unfreeze.results.result import best_validation, count_epochs
from unfreeze.results.run_directory import RunDirectory
from unfreeze.results.sweep_directory import read_jobs
from unfreeze.runs.builders.cache import prefix_cache_options
from unfreeze.runs.builders.module import build_module
from unfreeze.runs.builders.precision import allow_tf32, read_precision, with_precision
from unfreeze.runs.builders.trainer import build_trainer, check_trainer
from unfreeze.runs.fit import chosen_by_validation
from unfreeze.runs.reopen import Reopened, reopen
from unfreeze.runs.test import load_weights, predict_splits
from unfreeze.system.memory import keep_freed_pages
from unfreeze.training.features.stored_features import StoredFeatureTest
from unfreeze.training.module import ImageClassifier


class Evaluator:
    """Evaluates models on the images of a run with its Trainer, in its precision and memory layout.

    Args:
        reopened: The images of the run, or others.

    Attributes:
        reopened: As given.
        trainer: A Trainer for one process on one device, without loggers.

    Raises:
        UnfreezeError: If its Trainer can't be made on this machine.
    """

    def __init__(self, reopened: Reopened) -> None:
        config, data, directory = reopened.config, reopened.data, reopened.directory
        check_trainer(config)
        callbacks = (
            [StoredFeatureTest(prefix_cache_options(config.cache, sweep=None), data)] if config.cache.enabled else []
        )
        self.reopened = reopened
        self.trainer = build_trainer(
            config, OmegaConf.create({"callbacks": None, "logger": None}), directory, callbacks
        )
        device, precision = self.trainer.strategy.root_device, read_precision(directory)
        if precision is not None:
            allow_tf32(with_precision(config, precision), device)
        if device.type == "cpu" and data.store.pixels.fits_in_memory:
            keep_freed_pages()
        self._channels_last = precision is None or precision.channels_last

    def module_of(self, classifier: Classifier) -> ImageClassifier:
        """Return the module that the trainer evaluates a classifier with."""
        return build_module(self.reopened.config, classifier, self.reopened.data, channels_last=self._channels_last)


def test_run(directory: RunDirectory) -> None:
    """Test the best checkpoint of a completed run that was not tested, and add the metrics to its result.

    Raises:
        UnfreezeError: If the run's data can't be had any more, or is not what it was.
    """
    with owned(directory.path, verb="test", advice="test it later by unfreeze evaluate"):
        classifier = load_classifier(directory.best, trust_repo=True)
        evaluate_best(classifier, reopen(directory, classifier.preprocessing), test=True)


def evaluate_best(classifier: Classifier, reopened: Reopened, *, test: bool) -> None:
    """Evaluate the best checkpoint on validation, and with `test` on the test split; store predictions and metrics."""
    directory, evaluator = reopened.directory, Evaluator(reopened)
    module = evaluator.module_of(classifier)
    load_weights(module, directory.best)
    predictions = predict_splits(evaluator.trainer, module, reopened.data, ["val", "test"] if test else ["val"])
    predictions.save(directory.predictions_file)
    record = read_record(directory)
    best = best_validation(record.history, reopened.config.monitor, reopened.config.monitor_mode) or {}
    result = {**record.result, "temperatures": predictions.temperatures, "test": metrics_of(predictions, "test")}
    runs = len(read_jobs(directory.path.parent))
    warnings = find_warnings(
        result,
        epochs=count_epochs(record.history),
        planned_epochs=None if record.plan is None else sum(stage["epochs"] for stage in record.plan["stages"]),
        train_acc=best.get("train/acc"),
        chosen=((f"the best of {runs} runs",) if runs > 1 else ()) + chosen_by_validation(reopened.config),
    )
    directory.write_result({**result, "warnings": [asdict(warning) for warning in warnings]})
