"""All pictures of a run."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.calibration import scaled
from unfreeze.evaluation.confusions import count_confusions
from unfreeze.evaluation.looking import Looker
from unfreeze.evaluation.metrics import figures_by_class
from unfreeze.evaluation.pictures.confusion import plot_confusion
from unfreeze.evaluation.pictures.curves import plot_learning_curves, plot_rates
from unfreeze.evaluation.pictures.feature_map import MOST_IMAGES, map_features, plot_feature_map
from unfreeze.evaluation.pictures.per_class import plot_per_class
from unfreeze.evaluation.pictures.photos import (
    Photo,
    most_confident_mistakes,
    plot_photos,
    some_of_each_class,
)
from unfreeze.evaluation.pictures.reliability import Said, plot_reliability
from unfreeze.evaluation.predictions import KeptPredictions, Predictions, TaskAnswers, answers_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.models.outputs import GIVEN_AT
from unfreeze.system.files import file_word

log = logging.getLogger("unfreeze.evaluation.pictures.gallery")

_IN_GRID = 24
_EXPLAINED = 6


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, as a figure and, of images, as what it is made of.

    Args:
        name: Of its file, such as "confusion".
        title: For a page.
        caption: What it shows, in a sentence.
        draw: Makes the figure.
        photos: What the figure is a grid of; empty for charts.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    photos: Sequence[Photo] = field(default=())

    @cached_property
    def figure(self) -> Figure:
        """For files and TensorBoard; drawn when it is first asked for."""
        return self.draw()


def draw_pictures(record: RunRecord, looker: Looker | None, *, split: str = "test") -> Iterator[Picture]:
    """Yield the pictures of a run, those that say most first.

    Args:
        record: The run.
        looker: Its model and images; None where they can't be had, and then pictures that need them are left out.
        split: Whose answers are shown; where the run has none of these, those of validation.
    """
    if any("val/acc" in row for row in record.history):
        yield Picture(
            "learning_curves",
            "Learning curves",
            "Accuracy and loss per epoch; dashed lines where a stage begins. Training figures are those of "
            f"{'augmented ' if set(record.augmentations) - {'none'} else ''}images, as the epoch went.",
            partial(plot_learning_curves, record.history),
        )
    kept = record.predictions
    if kept is not None and kept.splits:
        split = split if split in kept.splits else next(iter(kept.splits))
        yield from _of_answers(record, kept, split, looker)
    begun = record.plan.stages[: len(record.stages)] if record.plan is not None else ()
    if record.plan is not None and any(stage.solver is None for stage in begun):
        yield Picture(
            "rates",
            "Learning rates",
            "The rate of each layer group while it trains; what is frozen has none.",
            partial(plot_rates, record.plan, [stage["epochs"] for stage in record.stages]),
        )


def _of_answers(record: RunRecord, kept: KeptPredictions, split: str, looker: Looker | None) -> Iterator[Picture]:
    predictions = kept.splits[split]
    test = record.result.get("test") if split == "test" else None
    if kept.outputs.multilabel:
        if test is not None:
            yield _per_class(test, "")
        yield _label_reliability(kept, predictions)
        return
    tasks = answers_by_task(predictions, kept.outputs)
    soft = answers_by_task(_softened(predictions, kept), kept.outputs) if kept.temperatures else [None] * len(tasks)
    temperatures: Sequence[float | None] = kept.temperatures or [None] * len(tasks)
    for task, after, temperature in zip(tasks, soft, temperatures, strict=True):
        suffix = f"-{file_word(task.name)}" if len(tasks) > 1 else ""
        figures = test["tasks"][task.name] if test is not None and "tasks" in test else test
        yield _confusion(task, suffix)
        if figures is not None:
            yield _per_class(figures, suffix)
        yield Picture(
            f"reliability{suffix}",
            f"Reliability{_of(suffix)}",
            "Accuracy of the predictions by their confidence; on the dashed line the two are equal. Larger marks stand "
            "for more predictions.",
            partial(plot_reliability, _said(task), None if after is None else _said(after), temperature=temperature),
        )
        if looker is not None:
            yield from _of_images(task, predictions, looker, suffix)
    if looker is not None:
        yield from _feature_map(tasks[0], predictions, looker)


def _confusion(task: TaskAnswers, suffix: str) -> Picture:
    return Picture(
        f"confusion{suffix}",
        f"Confusion matrix{_of(suffix)}",
        "Images per true class (rows) and predicted class (columns); the colour is the share of the true class.",
        partial(plot_confusion, count_confusions(task), task.classes),
    )


def _per_class(figures: Mapping[str, Any], suffix: str) -> Picture:
    return Picture(
        f"per_class{suffix}",
        f"F1, precision and recall per class{_of(suffix)}",
        "F1 as bars, recall and precision as marks, the weakest class first; in brackets, how many images it has.",
        partial(plot_per_class, figures_by_class(dict(figures))),
    )


def _label_reliability(kept: KeptPredictions, predictions: Predictions) -> Picture:
    def said(logits: Any) -> Said:
        probabilities, truth = logits.double().sigmoid().numpy().ravel(), predictions.labels.numpy().ravel()
        given = probabilities >= GIVEN_AT
        return np.where(given, probabilities, 1 - probabilities), given == truth.astype(bool)

    after = scaled(predictions.logits, kept.outputs, kept.temperatures) if kept.temperatures else None
    return Picture(
        "reliability",
        "Reliability",
        "Accuracy of the predictions by their confidence, of all labels together.",
        partial(
            plot_reliability,
            said(predictions.logits),
            None if after is None else said(after),
            temperature=kept.temperatures[0] if kept.temperatures else None,
        ),
    )


def _softened(predictions: Predictions, kept: KeptPredictions) -> Predictions:
    assert kept.temperatures is not None
    return replace(predictions, logits=scaled(predictions.logits, kept.outputs, kept.temperatures))


def _said(task: TaskAnswers) -> Said:
    return task.confidence, task.right


def photos_of(
    task: TaskAnswers, predictions: Predictions, looker: Looker, rows: NDArray[np.int64], *, heat: bool = False
) -> list[Photo]:
    """Return some of the images that were answered, with what was said of them."""
    if not len(rows):
        return []
    indices = predictions.indices[rows]
    heats = looker.heat(indices, task.answers[rows]) if heat else None
    return [
        Photo(
            pixels=pixels,
            name=predictions.names[row],
            true=task.classes[task.truth[row]],
            predicted=task.classes[task.answers[row]],
            probability=float(task.confidence[row]),
            is_right=bool(task.right[row]),
            heat=None if heats is None else heats[number],
        )
        for number, (row, pixels) in enumerate(zip(rows, looker.pixels(indices), strict=True))
    ]


def _of_images(task: TaskAnswers, predictions: Predictions, looker: Looker, suffix: str) -> Iterator[Picture]:
    mistakes = photos_of(task, predictions, looker, most_confident_mistakes(task, _IN_GRID))
    if mistakes:
        yield Picture(
            f"mistakes{suffix}",
            f"Most confident mistakes{_of(suffix)}",
            "What the model was surest of, and wrong. Look for wrong labels among them.",
            partial(plot_photos, mistakes),
            mistakes,
        )
    some = photos_of(task, predictions, looker, some_of_each_class(task.truth, _IN_GRID))
    yield Picture(
        f"predictions{suffix}",
        f"Some predictions{_of(suffix)}",
        "Images drawn by chance, the classes in turns.",
        partial(plot_photos, some),
        some,
    )
    if suffix:
        return  # the logits of the first task alone are found by their number
    rows = np.concatenate(
        [most_confident_mistakes(task, _EXPLAINED), _surest(task, _EXPLAINED)],
    )
    if explained := _explained(task, predictions, looker, rows):
        yield Picture(
            "saliency",
            "Saliency",
            "Grad-CAM: bright areas raised the score of the predicted class, right or wrong.",
            partial(plot_photos, explained, with_heat=True),
            explained,
        )


def _explained(
    task: TaskAnswers, predictions: Predictions, looker: Looker, rows: NDArray[np.int64]
) -> list[Photo] | None:
    """Return images with their saliency; None where the network has no gradients to show."""
    try:
        photos = photos_of(task, predictions, looker, rows, heat=True)
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError) as error:
        # Captum asks networks for gradients in ways that not every network of a person's own takes.
        log.info(f"  {'':<13} no saliency ({type(error).__name__}: {error})")
        return None
    return photos if photos and photos[0].heat is not None else None


def _surest(task: TaskAnswers, most: int) -> NDArray[np.int64]:
    """Return right answers of different classes."""
    right = np.flatnonzero(task.right)
    return right[some_of_each_class(task.truth[right], most)] if len(right) else right


def _feature_map(task: TaskAnswers, predictions: Predictions, looker: Looker) -> Iterator[Picture]:
    rows = np.sort(some_of_each_class(task.truth, MOST_IMAGES))
    if len(rows) < 3:
        return
    places = map_features(looker.features(predictions.indices[rows]))
    yield Picture(
        "feature_map",
        "Features (t-SNE)",
        "Images that look alike to the head lie near each other; a class that lies apart is easy to tell. "
        "Distances between groups mean little.",
        partial(plot_feature_map, places, task.truth[rows], task.right[rows], task.classes),
    )


def _of(suffix: str) -> str:
    return f", {suffix[1:]}" if suffix else ""
