"""A run judged again, on its own images or on others with the same classes; beside the run, never over it."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from unfreeze.config.overrides import override_key
from unfreeze.errors import UnfreezeError
from unfreeze.results.lock import owned
from unfreeze.results.run_directory import best_of, check_checkpoint
from unfreeze.runs.build.data import build_data, build_source, decode
from unfreeze.runs.build.outputs import answers_of
from unfreeze.runs.fit import check_values
from unfreeze.runs.reopen import Reopened, read_request, reopen, run_without_training
from unfreeze.runs.test import figures_of, load_weights, predict_splits, write_report
from unfreeze.system.files import read_json, refuse_occupied

if TYPE_CHECKING:
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.evaluation.predictions import KeptPredictions
    from unfreeze.models.classifier import Classifier
    from unfreeze.models.outputs import Outputs

EVALUATIONS = "evaluations"


def evaluate_run(
    run_dir: Path,
    *,
    data: DictConfig | None = None,
    typed: Sequence[str] = (),
    split: Literal["val", "test"] | None = None,
    out: Path | None = None,
    trust_repo: bool = False,
) -> Path:
    """Judge the best checkpoint of a run, and write figures, pictures and a page.

    Args:
        run_dir: Of the run.
        data: The `data` part of a configuration, for other images than the run's; their classes are those of the run,
            or some of them.
        typed: What it was asked with.
        split: Which images; None for the test split, or for all images where others have no splits of their own.
        out: Where the evaluation goes; None for a new folder in `evaluations/` of the run.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        The folder.

    Raises:
        UnfreezeError: If the run, its images or its classes are not to be had.
    """
    if out is not None:
        refuse_occupied(out, verb="evaluate")
    checkpoint = best_of(run_dir)
    check_checkpoint(checkpoint)
    from unfreeze.models.checkpoint import load_classifier

    classifier = load_classifier(checkpoint, trust_repo=trust_repo)
    place, advice = (run_dir, "type --out") if out is None else (out, "name another place with --out")
    with owned(place, verb="evaluate", advice=advice):
        return _evaluate_owned(run_dir, classifier, data=data, typed=typed, split=split, out=out)


def _evaluate_owned(
    run_dir: Path,
    classifier: "Classifier",
    *,
    data: DictConfig | None,
    typed: Sequence[str],
    split: Literal["val", "test"] | None,
    out: Path | None,
) -> Path:
    from unfreeze.evaluation.predictions import PREDICTIONS_FILE, KeptPredictions
    from unfreeze.training.callbacks.recorder import write_json

    raw = read_request(run_dir / "config.yaml")
    name: str = split or "test"
    if data is None:
        opened = reopen(run_dir, classifier.preprocessing)
    else:
        raw.data = data
        opened, name = _open_others(raw, run_dir, classifier, split)
    judged = split or "test"
    if not len(opened.data.splits.parts[judged]):
        raise UnfreezeError(
            f"evaluate: the data has no {name} images; type --split {'val' if name == 'test' else 'test'}"
        )
    module = opened.module_of(classifier)
    load_weights(module, best_of(run_dir))
    answered = predict_splits(opened.trainer, module, opened.data, [judged])
    of_run = KeptPredictions.load(run_dir / PREDICTIONS_FILE) if (run_dir / PREDICTIONS_FILE).is_file() else None
    kept = replace(
        answered,
        splits={"test": answered.splits[judged]},
        temperatures=None if of_run is None else of_run.temperatures,
        train_digests=_trained_on(answered if data is None else None, of_run),
    )
    result = _result_of(
        kept,
        opened.data,
        read_json(run_dir / "result.json"),
        chose=_count_choosing(kept.splits["test"].digests, of_run, is_val=data is None and split == "val"),
    )
    result |= {"evaluated": f"{opened.data.source.name}, {name}", "run": str(run_dir.absolute())}
    result["overrides"] = list(typed)
    place = out or _free_folder(run_dir / EVALUATIONS, f"{opened.data.source.name}-{name}")
    place.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(raw, place / "config.yaml")
    kept.save(place / PREDICTIONS_FILE)
    write_json(place / "result.json", result)
    write_report(place, opened.data, opened.trainer.strategy.root_device, classifier=classifier)
    return place


def _trained_on(own: "KeptPredictions | None", run: "KeptPredictions | None") -> NDArray[np.void]:
    """Return hashes of the images that were trained on, as far as they are known."""
    known = run or own
    return np.empty(0, dtype="V16") if known is None else known.train_digests


def _result_of(
    kept: "KeptPredictions", data: "ImageDataModule", run: Mapping[str, Any], *, chose: int
) -> dict[str, Any]:
    """Return the figures of an evaluation, and what speaks against them.

    Args:
        kept: What was said of its images.
        data: These.
        run: The result of the run.
        chose: How many of them have chosen the model.
    """
    from unfreeze.evaluation.result import RESULT_SCHEMA, versions
    from unfreeze.evaluation.warnings import judge_trust

    digests = kept.splits["test"].digests
    result: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "status": "completed",
        "best": run.get("best"),
        "val": None,
        "test": figures_of(kept, "test"),
        "temperatures": kept.temperatures,
        "seed": run.get("seed"),
        "versions": versions(),
        "data": {
            "fingerprint": data.store.fingerprint,
            "test": len(digests),
            "unreadable": len(data.store.facts.unreadable),
            "also_in_train": {"val": 0, "test": int(np.isin(digests, kept.train_digests).sum())},
            "chose_model": chose,
        },
    }
    cautions = judge_trust(result, epochs=0, planned_epochs=None, train_acc=None)
    return {**result, "warnings": [asdict(caution) for caution in cautions]}


def _count_choosing(judged: NDArray[np.void], run: "KeptPredictions | None", *, is_val: bool) -> int:
    """Return how many of some images have chosen the model, by their content."""
    if is_val:
        return len(judged)
    val = None if run is None else run.splits.get("val")
    return 0 if val is None else int(np.isin(judged, val.digests).sum())


def check_only_data(typed: Sequence[str]) -> None:
    """Refuse what an evaluation can't change.

    Raises:
        UnfreezeError: Naming it.
    """
    for override in typed:
        key = override_key(override)
        if key != "data" and not key.startswith("data."):
            raise UnfreezeError(
                f"evaluate: {key!r} is what the run was trained with, and stays; want data=... and data.<key>=..."
            )
        if key == "data.image_size":
            raise UnfreezeError("evaluate: data.image_size is what the network was trained for, and stays")


def _open_others(
    raw: DictConfig, run_dir: Path, classifier: "Classifier", split: Literal["val", "test"] | None
) -> tuple[Reopened, str]:
    """Return other images than those of the run, labelled by the run's classes, and what they are called."""
    from unfreeze.data.splits.splits import Splits

    config = run_without_training(check_values(raw, ()))
    source = build_source(config)
    outputs, labels = answers_of(config, source.tasks)
    labels = labels_of(labels, outputs, classifier.outputs)
    own = set(source.splits.tolist())
    name: str = split or ("test" if "test" in own else "all")
    if split is not None and split not in own:
        raise UnfreezeError(
            f"evaluate: the data has no {split} split of its own; leave --split out to judge all of its images"
        )
    judged = np.arange(len(source.labels)) if name == "all" else np.flatnonzero(source.splits == name)
    data = build_data(config, source, Splits(judged, judged, judged, cut=()))  # nothing is trained on
    data.relabel(labels)
    decode(data, classifier.preprocessing)
    return Reopened.with_data(config, data, run_dir), name


def labels_of(labels: NDArray[np.int64], theirs: "Outputs", ours: "Outputs") -> NDArray[np.int64]:
    """Return labels of other data as the run's classes count them.

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
