"""The pictures of a run, in the order of its report."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.calibration import scale_logits
from unfreeze.evaluation.confusions import count_confusions
from unfreeze.evaluation.explainer import ImageExplainer
from unfreeze.evaluation.pictures.confusion import plot_confusion
from unfreeze.evaluation.pictures.curves import RateCurve, plot_learning_curves, plot_rates
from unfreeze.evaluation.pictures.feature_map import MAX_IMAGES, map_features, plot_feature_map
from unfreeze.evaluation.pictures.per_class import plot_per_class
from unfreeze.evaluation.pictures.photos import (
    Photo,
    most_confident_mistakes,
    plot_photos,
    sample_across_classes,
)
from unfreeze.evaluation.pictures.reliability import ScoredPredictions, plot_reliability
from unfreeze.evaluation.predictions import Predictions, StoredPredictions, TaskPredictions, predictions_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.models.outputs import DEFAULT_THRESHOLD
from unfreeze.results.result import metrics_by_class
from unfreeze.system.files import file_word

log = logging.getLogger("unfreeze.evaluation.pictures.gallery")

_IN_GRID = 24
_EXPLAINED = 6


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: a figure, and for a grid of images the images themselves.

    Args:
        name: Stem of its file, such as "confusion".
        title: Title on the page.
        caption: One sentence on its content.
        draw: Function that draws the figure.
        photos: The images of a grid; empty for charts.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    photos: Sequence[Photo] = field(default=())

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn at the first access."""
        return self.draw()


def draw_pictures(
    record: RunRecord, explainer: ImageExplainer | None, *, rates: Sequence[RateCurve] = (), split: str = "test"
) -> Iterator[Picture]:
    """Yield the pictures of a run, the most informative first.

    Args:
        record: The run.
        explainer: Its model and images; None to leave out the pictures that need them.
        rates: The learning rates of its layer groups; empty for no picture of them.
        split: The split whose predictions are shown; validation if the run has none for it.
    """
    if any("val/acc" in row for row in record.history):
        yield _learning_curves(record)
    stored = record.predictions
    if stored is not None and stored.splits:
        split = split if split in stored.splits else next(iter(stored.splits))
        yield from _of_predictions(record, stored, split, explainer)
    if rates:
        yield Picture(
            "rates",
            "Learning rates",
            "The rate of each layer group while it trains; frozen groups have none.",
            partial(plot_rates, rates, [(stage["name"], stage["epochs"]) for stage in record.stages]),
        )


def _learning_curves(record: RunRecord) -> Picture:
    augmented = "augmented " if set(record.augmentations) - {"none"} else ""
    return Picture(
        "learning_curves",
        "Learning curves",
        "Accuracy and loss per epoch; dashed lines where a stage begins. Training metrics are averages over the "
        f"{augmented}images of the epoch.",
        partial(plot_learning_curves, record.history),
    )


def _of_predictions(
    record: RunRecord, stored: StoredPredictions, split: str, explainer: ImageExplainer | None
) -> Iterator[Picture]:
    predictions = stored.splits[split]
    test = record.result.get("test") if split == "test" else None
    if stored.outputs.multilabel:
        if test is not None:
            yield _per_class(test, "")
        yield _label_reliability(stored, predictions)
        return
    tasks = predictions_by_task(predictions, stored.outputs)
    for task, reliability in zip(tasks, _reliabilities(stored, predictions, tasks), strict=True):
        suffix = _suffix(task, tasks)
        yield _confusion(task, suffix)
        if test is not None:
            yield _per_class(test["tasks"][task.name] if "tasks" in test else test, suffix)
        yield reliability
        if explainer is not None:
            yield from _of_images(task, predictions, explainer, suffix)
    if explainer is not None:
        yield from _feature_map(tasks[0], predictions, explainer)


def _suffix(task: TaskPredictions, tasks: Sequence[TaskPredictions]) -> str:
    return f"-{file_word(task.name)}" if len(tasks) > 1 else ""


def _confusion(task: TaskPredictions, suffix: str) -> Picture:
    return Picture(
        f"confusion{suffix}",
        f"Confusion matrix{_of(suffix)}",
        "Images per true class (rows) and predicted class (columns); the colour is the share of the true class.",
        partial(plot_confusion, count_confusions(task), task.classes),
    )


def _per_class(metrics: Mapping[str, Any], suffix: str) -> Picture:
    return Picture(
        f"per_class{suffix}",
        f"F1, precision and recall per class{_of(suffix)}",
        "F1 as bars, recall and precision as marks, the weakest class first; numbers of images in brackets.",
        partial(plot_per_class, metrics_by_class(dict(metrics))),
    )


def _reliabilities(
    stored: StoredPredictions, predictions: Predictions, tasks: Sequence[TaskPredictions]
) -> Iterator[Picture]:
    """Yield the reliability diagram of each task, before and after temperature scaling."""
    temperatures: Sequence[float | None] = stored.temperatures or [None] * len(tasks)
    scaled: Sequence[TaskPredictions | None] = [None] * len(tasks)
    if stored.temperatures is not None:
        logits = scale_logits(predictions.logits, stored.outputs, stored.temperatures)
        scaled = predictions_by_task(replace(predictions, logits=logits), stored.outputs)
    for task, after, temperature in zip(tasks, scaled, temperatures, strict=True):
        suffix = _suffix(task, tasks)
        yield Picture(
            f"reliability{suffix}",
            f"Reliability{_of(suffix)}",
            "Accuracy of the predictions by their confidence; on the dashed line the two are equal. Larger marks stand "
            "for more predictions.",
            partial(
                plot_reliability,
                (task.confidence, task.correct),
                None if after is None else (after.confidence, after.correct),
                temperature=temperature,
            ),
        )


def _label_reliability(stored: StoredPredictions, predictions: Predictions) -> Picture:
    def score(logits: Any) -> ScoredPredictions:
        probabilities, truth = logits.double().sigmoid().numpy().ravel(), predictions.labels.numpy().ravel()
        positive = probabilities >= DEFAULT_THRESHOLD
        return np.where(positive, probabilities, 1 - probabilities), positive == truth.astype(bool)

    temperatures = stored.temperatures
    scaled = scale_logits(predictions.logits, stored.outputs, temperatures) if temperatures else None
    return Picture(
        "reliability",
        "Reliability",
        "Accuracy of the predictions by their confidence, of all labels together.",
        partial(
            plot_reliability,
            score(predictions.logits),
            None if scaled is None else score(scaled),
            temperature=temperatures[0] if temperatures else None,
        ),
    )


def build_photos(
    task: TaskPredictions,
    predictions: Predictions,
    explainer: ImageExplainer,
    rows: NDArray[np.int64],
    *,
    heat: bool = False,
) -> list[Photo]:
    """Return some of the evaluated images with their predictions, and with saliency maps if requested."""
    if not len(rows):
        return []
    indices = predictions.indices[rows]
    heats = explainer.heat(indices, task.predicted[rows]) if heat else None
    return [
        Photo(
            pixels=pixels,
            name=predictions.names[row],
            true=task.classes[task.truth[row]],
            predicted=task.classes[task.predicted[row]],
            probability=float(task.confidence[row]),
            is_correct=bool(task.correct[row]),
            heat=None if heats is None else heats[number],
        )
        for number, (row, pixels) in enumerate(zip(rows, explainer.pixels(indices), strict=True))
    ]


def _of_images(
    task: TaskPredictions, predictions: Predictions, explainer: ImageExplainer, suffix: str
) -> Iterator[Picture]:
    mistakes = build_photos(task, predictions, explainer, most_confident_mistakes(task, _IN_GRID))
    if mistakes:
        yield Picture(
            f"mistakes{suffix}",
            f"Most confident mistakes{_of(suffix)}",
            "Wrong predictions with the highest confidence. Some may be wrong labels.",
            partial(plot_photos, mistakes),
            mistakes,
        )
    sample = build_photos(task, predictions, explainer, sample_across_classes(task.truth, _IN_GRID))
    yield Picture(
        f"predictions{suffix}",
        f"Some predictions{_of(suffix)}",
        "Randomly drawn images, alternating between the classes.",
        partial(plot_photos, sample),
        sample,
    )
    if suffix:
        return  # Grad-CAM takes the index of a logit, which equals the class number in the first task only
    rows = np.concatenate([most_confident_mistakes(task, _EXPLAINED), _sample_correct(task, _EXPLAINED)])
    if explained := _explain(task, predictions, explainer, rows):
        yield Picture(
            "saliency",
            "Saliency",
            "Grad-CAM: bright areas raised the score of the predicted class, right or wrong.",
            partial(plot_photos, explained, with_heat=True),
            explained,
        )


def _explain(
    task: TaskPredictions, predictions: Predictions, explainer: ImageExplainer, rows: NDArray[np.int64]
) -> list[Photo] | None:
    """Return images with their saliency maps; None if the network does not support Grad-CAM."""
    try:
        photos = build_photos(task, predictions, explainer, rows, heat=True)
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError) as error:
        # Captum's hooks do not work with every custom network.
        log.info(f"  {'':<13} no saliency ({type(error).__name__}: {error})")
        return None
    return photos if photos and photos[0].heat is not None else None


def _sample_correct(task: TaskPredictions, limit: int) -> NDArray[np.int64]:
    """Return rows of correct predictions, alternating between the classes."""
    correct = np.flatnonzero(task.correct)
    return correct[sample_across_classes(task.truth[correct], limit)] if len(correct) else correct


def _feature_map(task: TaskPredictions, predictions: Predictions, explainer: ImageExplainer) -> Iterator[Picture]:
    rows = np.sort(sample_across_classes(task.truth, MAX_IMAGES))
    if len(rows) < 3:
        return
    points = map_features(explainer.features(predictions.indices[rows]))
    yield Picture(
        "feature_map",
        "Features (t-SNE)",
        "Images with similar features are close together; an isolated cluster is a class that is easy to separate. "
        "Distances between clusters mean little.",
        partial(plot_feature_map, points, task.truth[rows], task.correct[rows], task.classes),
    )


def _of(suffix: str) -> str:
    return f", {suffix[1:]}" if suffix else ""
