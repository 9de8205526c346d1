"""The report of a run, written after its test or later."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from unfreeze.data.image_data import ImageData
from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.predictions import StoredPredictions
from unfreeze.evaluation.record import RunRecord, read_record
from unfreeze.evaluation.warnings import find_warnings
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.results.lock import owned
from unfreeze.results.monitor import mode_of
from unfreeze.results.result import UNFINISHED, RunResult
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.device import device_of
from unfreeze.runs.reopen import reopen
from unfreeze.system.files import shown_path
from unfreeze.training.plan.curves import RateCurve, rate_curves
from unfreeze.training.plan.plan import Plan

if TYPE_CHECKING:
    from unfreeze.evaluation.pictures.gallery import Picture

log = logging.getLogger("unfreeze.runs.report")


def write_report(
    directory: RunDirectory,
    data: ImageData | None,
    device: torch.device | None,
    *,
    classifier: Classifier | None = None,
) -> "list[Picture]":
    """Draw the pictures of a run that has ended, and write its page.

    Args:
        directory: The run, with its result.
        data: Its decoded images; None where they are not available.
        device: Where the model computes saliency; None for no pictures of images.
        classifier: The model; None for the best checkpoint.

    Returns:
        The pictures.
    """
    from unfreeze.evaluation.confusions import write_confusion  # scikit-learn and matplotlib: not before training
    from unfreeze.evaluation.explainer import ImageExplainer
    from unfreeze.evaluation.report.explain import explain

    record = read_record(directory)
    explainer = None
    if data is not None and device is not None and record.predictions is not None:
        # The caller has just run this network, so its repository is already trusted.
        model = classifier or load_classifier(directory.best, trust_repo=True)
        explainer = ImageExplainer(model, data.store, device)
    write_confusion(record)
    return explain(record, explainer, planned_rates(record))


def planned_rates(record: RunRecord) -> list[RateCurve]:
    """Return the learning rates of a run's layer groups over its epochs; none where its plan is not known."""
    with suppress(KeyError, TypeError):
        if record.plan is not None:
            return rate_curves(Plan.from_dict(record.plan), [stage["epochs"] for stage in record.stages])
    return []


def try_report(directory: RunDirectory, data: ImageData | None, device: torch.device | None) -> "list[Picture]":
    """Write the page of a run, and log the reason where that fails."""
    pictures: list[Picture] = []
    with report_failing(directory):
        pictures += write_report(directory, data, device)
    return pictures


@contextmanager
def report_failing(directory: RunDirectory) -> Iterator[None]:
    """Log in one line why there is no page, instead of raising."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UnfreezeError) else f"{type(error).__name__}: {error}"
        log.warning(f"  ! no report ({reason}); unfreeze report {shown_path(directory.path)} tries again")
        logging.getLogger("traceback").error(traceback.format_exc())


def report_run(directory: RunDirectory, *, trust_repo: bool = False) -> str | None:
    """Write the pictures and the page of a run anew; a run without stored predictions is evaluated first.

    A run that was not tested is not tested for its report.

    Args:
        directory: The run.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        Why the report has no pictures of images; None where it has them.

    Raises:
        UnfreezeError: If the directory holds no run, can't be written to, or another process is writing it.
    """
    directory.read_result()
    with owned(directory.path, verb="report", advice="report on a copy of it"):
        return _report_owned(directory, trust_repo=trust_repo)


def _report_owned(directory: RunDirectory, *, trust_repo: bool) -> str | None:
    result = directory.read_result()
    if result.get("reason") == UNFINISHED:
        _complete_result(directory, result)
    if not directory.best.is_file():
        write_report(directory, None, None)
        return None
    try:
        classifier = load_classifier(directory.best, trust_repo=trust_repo)
        reopened = reopen(directory, classifier.preprocessing)
        device = device_of(reopened.config)
    except UnfreezeError as error:
        write_report(directory, None, None)
        return str(error)
    if result["status"] == "completed":
        stored = directory.predictions_file
        if not stored.is_file() or "val" not in StoredPredictions.load(stored).splits:
            from unfreeze.runs.evaluator import evaluate_best  # Lightning: only where something must be evaluated

            evaluate_best(classifier, reopened, test=result.get("test") is not None)
    write_report(directory, reopened.data, device, classifier=classifier)
    return None


def _complete_result(directory: RunDirectory, result: dict[str, Any]) -> None:
    """Complete the result of a run that was killed, from the rows that it wrote after each epoch."""
    rows, monitor = directory.read_stages(), str(result.get("monitor"))
    known = RunResult(
        monitor=monitor,
        mode=mode_of(monitor),
        seed=result["seed"],
        overrides=result["overrides"],
        data=result["data"],
        compute=result["compute"],
        status=result["status"],
        reason=result["reason"],
        seconds=sum(row["seconds"] for row in rows),
    )
    known.set_training(directory.read_history(), rows, resumed=result["resumed"])
    if known.best is not None:
        known.warnings = find_warnings(
            known.to_dict(), epochs=known.epochs, planned_epochs=None, train_acc=known.train_acc
        )
        directory.write_result({**known.to_dict(), "versions": result["versions"]})
