"""The evaluation of a run on its own images or on others with the same classes; stored beside the run."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from unfreeze.config.values import check_values
from unfreeze.data.image_data import ImageData
from unfreeze.data.splits.splits import Splits
from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.metrics import metrics_of
from unfreeze.evaluation.predictions import StoredPredictions
from unfreeze.evaluation.warnings import find_warnings
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import Outputs
from unfreeze.results.lock import owned
from unfreeze.results.result import RESULT_SCHEMA, versions
from unfreeze.results.run_directory import RunDirectory, check_checkpoint
from unfreeze.runs.builders.data import build_data, decode
from unfreeze.runs.builders.outputs import outputs_of
from unfreeze.runs.builders.source import build_source
from unfreeze.runs.reopen import Reopened, read_request, reopen, run_without_training
from unfreeze.runs.report import write_report
from unfreeze.system.files import refuse_occupied


def evaluate_run(
    run: RunDirectory,
    *,
    data: DictConfig | None = None,
    typed: Sequence[str] = (),
    split: Literal["val", "test"] | None = None,
    out: Path | None = None,
    trust_repo: bool = False,
) -> RunDirectory:
    """Evaluate the best checkpoint of a run, and write metrics, pictures and a page.

    Args:
        run: The run.
        data: The `data` part of a configuration, for other images than the run's; their classes are those of the run,
            or some of them.
        typed: The overrides of that configuration.
        split: The images; None for the test split, or for all images where others have no splits of their own.
        out: Where the evaluation goes; None for a new folder in `evaluations/` of the run.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        The directory of the evaluation.

    Raises:
        UnfreezeError: If the run, its images or its classes are missing.
    """
    if out is not None:
        refuse_occupied(out, verb="evaluate")
    check_checkpoint(run.best)
    classifier = load_classifier(run.best, trust_repo=trust_repo)
    place, advice = (run.path, "type --out") if out is None else (out, "name another place with --out")
    with owned(place, verb="evaluate", advice=advice):
        return _evaluate_owned(run, classifier, data=data, typed=typed, split=split, out=out)


def _evaluate_owned(
    run: RunDirectory,
    classifier: Classifier,
    *,
    data: DictConfig | None,
    typed: Sequence[str],
    split: Literal["val", "test"] | None,
    out: Path | None,
) -> RunDirectory:
    raw = read_request(run)
    name: str = split or "test"
    if data is None:
        opened = reopen(run, classifier.preprocessing)
    else:
        raw.data = data
        opened, name = _open_others(raw, run, classifier, split)
    images = opened.data
    if not len(images.splits.parts[split or "test"]):
        raise UnfreezeError(
            f"evaluate: the data has no {name} images; type --split {'val' if name == 'test' else 'test'}"
        )
    predictions, own, device = _predict(opened, classifier, split or "test")
    of_run = StoredPredictions.load(run.predictions_file) if run.predictions_file.is_file() else None
    known = of_run or (own if data is None else None)
    predictions = replace(
        predictions,
        temperatures=None if of_run is None else of_run.temperatures,
        train_digests=np.empty(0, dtype="V16") if known is None else known.train_digests,
    )
    is_val = data is None and split == "val"
    chose = _count_choosing(predictions.splits["test"].digests, of_run, is_val=is_val)
    result = _result_of(predictions, images, run.read_result(), chose=chose)
    result |= {"evaluated": f"{images.source.name}, {name}", "run": str(run.path.absolute()), "overrides": list(typed)}
    place = RunDirectory(out or _free_folder(run.evaluations, f"{images.source.name}-{name}"))
    place.path.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(raw, place.config_file)
    predictions.save(place.predictions_file)
    place.write_result(result)
    write_report(place, images, device, classifier=classifier)
    return place


def _predict(
    opened: Reopened, classifier: Classifier, split: Literal["val", "test"]
) -> tuple[StoredPredictions, StoredPredictions, torch.device]:
    """Return the predictions of a split stored as those of a test, as they are, and the device that computed them."""
    from unfreeze.runs.evaluator import Evaluator  # Lightning: only once nothing is left to refuse
    from unfreeze.runs.test import load_weights, predict_splits

    evaluator = Evaluator(opened)
    module = evaluator.module_of(classifier)
    load_weights(module, opened.directory.best)
    own = predict_splits(evaluator.trainer, module, opened.data, [split])
    return replace(own, splits={"test": own.splits[split]}), own, evaluator.trainer.strategy.root_device


def _result_of(
    predictions: StoredPredictions, data: ImageData, run: Mapping[str, Any], *, chose: int
) -> dict[str, Any]:
    """Return the metrics of an evaluation with their warnings.

    Args:
        predictions: Of its images.
        data: The images.
        run: The result of the run.
        chose: How many of the images were used to choose the model.
    """
    digests = predictions.splits["test"].digests
    result: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "status": "completed",
        "best": run.get("best"),
        "val": None,
        "test": metrics_of(predictions, "test"),
        "temperatures": predictions.temperatures,
        "seed": run.get("seed"),
        "versions": versions(),
        "data": {
            "fingerprint": data.store.fingerprint,
            "test": len(digests),
            "unreadable": len(data.store.facts.unreadable),
            "also_in_train": {"val": 0, "test": int(np.isin(digests, predictions.train_digests).sum())},
            "chose_model": chose,
        },
    }
    warnings = find_warnings(result, epochs=0, planned_epochs=None, train_acc=None)
    return {**result, "warnings": [asdict(warning) for warning in warnings]}


def _count_choosing(digests: NDArray[np.void], run: StoredPredictions | None, *, is_val: bool) -> int:
    """Return how many of some images the model was chosen by, compared by content."""
    if is_val:
        return len(digests)
    val = None if run is None else run.splits.get("val")
    return 0 if val is None else int(np.isin(digests, val.digests).sum())


def _open_others(
    raw: DictConfig, run: RunDirectory, classifier: Classifier, split: Literal["val", "test"] | None
) -> tuple[Reopened, str]:
    """Return other images than those of the run, labelled by the run's classes, and what they are called."""
    config = run_without_training(check_values(raw, ()))
    source = build_source(config)
    outputs, labels = outputs_of(config, source.tasks)
    labels = labels_of(labels, outputs, classifier.outputs)
    own = set(source.splits.tolist())
    name: str = split or ("test" if "test" in own else "all")
    if split is not None and split not in own:
        raise UnfreezeError(
            f"evaluate: the data has no {split} split of its own; leave --split out to evaluate all of its images"
        )
    chosen = np.arange(len(source.labels)) if name == "all" else np.flatnonzero(source.splits == name)
    data = build_data(ImageData, config, source, Splits(chosen, chosen, chosen, from_train=()))  # nothing is trained on
    data.relabel(labels)
    decode(data, classifier.preprocessing)
    return Reopened(run, config, data), name


def labels_of(labels: NDArray[np.int64], theirs: Outputs, ours: Outputs) -> NDArray[np.int64]:
    """Return the labels of other data as indices in the run's class order.

    Raises:
        UnfreezeError: If the data has a class, a task or a label that the run does not know.
    """
    if theirs.multilabel != ours.multilabel:
        raise UnfreezeError("evaluate: the run and the data do not both have several labels per image")
    if ours.multilabel:
        _check_known(theirs.names, ours.names, "label")
        found = np.zeros((len(labels), len(ours)), dtype=np.int64)
        found[:, [ours.names.index(name) for name in theirs.names]] = labels
        return found
    tasks = {task.name: task for task in ours.tasks}
    if len(theirs.tasks) == len(ours.tasks) == 1:
        tasks = {theirs.tasks[0].name: ours.tasks[0]}
    if set(tasks) != {task.name for task in theirs.tasks}:
        raise UnfreezeError(
            f"evaluate: the run tells apart {', '.join(sorted(tasks))}, the data has "
            f"{', '.join(task.name for task in theirs.tasks)}"
        )
    columns = labels.reshape(len(labels), -1).T
    mapped = {}
    for task, column in zip(theirs.tasks, columns, strict=True):
        _check_known(task.classes, tasks[task.name].classes, "class")
        numbers = np.array([tasks[task.name].classes.index(name) for name in task.classes], dtype=np.int64)
        mapped[task.name] = numbers[column]
    ordered = [mapped[name] for name in tasks]
    return ordered[0] if labels.ndim == 1 else np.stack(ordered, axis=1)


def _check_known(names: Sequence[str], known: Sequence[str], what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnfreezeError(
            f"evaluate: the run knows no {what} {unknown[0]!r}; want the same as the run's, or some of them: "
            f"{', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
        )


def _free_folder(parent: Path, name: str) -> Path:
    stem = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{name.replace(os.sep, '-')}"
    numbers = ("", *(f"-{number}" for number in range(2, 1000)))
    return next(parent / f"{stem}{number}" for number in numbers if not (parent / f"{stem}{number}").exists())
