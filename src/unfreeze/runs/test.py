"""A trained model judged on its splits, and what a run says of itself when it has ended."""

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import best_of
from unfreeze.runs.announce import shown_path

if TYPE_CHECKING:
    import torch
    from lightning import Trainer

    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.evaluation.pictures.gallery import Picture
    from unfreeze.evaluation.predictions import KeptPredictions
    from unfreeze.models.classifier import Classifier
    from unfreeze.training.module import ImageClassifier

log = logging.getLogger("unfreeze.runs.test")


def load_weights(module: "ImageClassifier", checkpoint: Path) -> None:
    """Give a module the weights of a checkpoint; not by ckpt_path, which would also set the callbacks back."""
    from unfreeze.models.checkpoint import read_checkpoint
    from unfreeze.models.state_dicts import load_state

    load_state(module, read_checkpoint(checkpoint)["state_dict"])


def predict_splits(
    trainer: "Trainer", module: "ImageClassifier", data: "ImageDataModule", splits: Sequence[Literal["val", "test"]]
) -> "KeptPredictions":
    """Return what a module as it is says of the images of some splits, in float32.

    Args:
        trainer: Of the run.
        module: With its weights.
        data: Decoded images.
        splits: "val" or "test"; empty ones are left out. Validation, where it is among them, finds the temperatures.
    """
    from unfreeze.evaluation.calibration import fit_temperatures
    from unfreeze.evaluation.predictions import KeptPredictions, Predictions
    from unfreeze.training.objectives import Multilabel

    facts, outputs, objective = data.store.facts, module.classifier.outputs, module.objective
    found: dict[str, Predictions] = {}
    for split in splits:
        if not len(data.splits.parts[split]):
            continue
        data.tested = split
        trainer.test(module, data, verbose=False)
        logits, labels, rows = module.test_answers()
        indices = rows.numpy()
        names = tuple(data.source.images.name(int(index)) for index in indices)
        found[split] = Predictions(logits, labels, indices, names, facts.digests[indices])
    val = found.get("val")
    return KeptPredictions(
        splits=found,
        outputs=outputs,
        thresholds=tuple(objective.thresholds.tolist()) if isinstance(objective, Multilabel) else None,
        temperatures=None if val is None else fit_temperatures(val.logits, val.labels, outputs),
        train_digests=facts.digests[data.splits.train],
    )


def figures_of(kept: "KeptPredictions", split: str) -> dict[str, Any] | None:
    """Return the figures of a split; None where it has no images."""
    from unfreeze.evaluation.metrics import judge_answers

    if split not in kept.splits:
        return None
    answers = kept.splits[split]
    return judge_answers(
        answers.logits,
        answers.labels,
        kept.outputs,
        thresholds=kept.thresholds,
        temperatures=kept.temperatures,
    )


def write_report(
    run_dir: Path,
    data: "ImageDataModule | None",
    device: "torch.device | None",
    *,
    classifier: "Classifier | None" = None,
) -> "list[Picture]":
    """Draw the pictures of a run that has ended, and write its page.

    Args:
        run_dir: Of the run, with its result.
        data: Its decoded images; None where they can't be had.
        device: Where its model computes for pictures; None where none do.
        classifier: Its model; None for its best checkpoint.

    Returns:
        The pictures.
    """
    from unfreeze.evaluation.confusions import write_confusion
    from unfreeze.evaluation.looking import Looker
    from unfreeze.evaluation.record import read_record
    from unfreeze.evaluation.report.explain import explain
    from unfreeze.models.checkpoint import load_classifier

    record = read_record(run_dir)
    looker = None
    if data is not None and device is not None and record.predictions is not None:
        # Whoever has the images has run this network a moment ago.
        model = classifier or load_classifier(best_of(run_dir), trust_repo=True)
        looker = Looker(model, data.store, device)
    write_confusion(record)
    return explain(record, looker)


def try_report(run_dir: Path, data: "ImageDataModule | None", device: "torch.device | None") -> "list[Picture]":
    """Write the page of a run; where that fails, the run is none the worse for it."""
    pictures: list[Picture] = []
    with report_failing(run_dir):
        pictures += write_report(run_dir, data, device)
    return pictures


@contextmanager
def report_failing(run_dir: Path) -> Iterator[None]:
    """Say in a line why there is no page, in place of whatever is raised."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UnfreezeError) else f"{type(error).__name__}: {error}"
        log.warning(f"  ! no report ({reason}); unfreeze report {shown_path(run_dir)} tries again")
        logging.getLogger("traceback").error(traceback.format_exc())
