"""Predictions of a classifier: probabilities of images, and their most probable classes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unfreeze.inference.batch_loader import BatchLoader
from unfreeze.inference.inputs import ImageChunk
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import DEFAULT_THRESHOLD, Outputs


class ClassPrediction(NamedTuple):
    """One predicted class of an image.

    Args:
        rank: Rank within its task, from 1, the most probable.
        label: Name of the class; of several tasks, `task:class`.
        probability: In [0, 1].
    """

    rank: int
    label: str
    probability: float


class Prediction(NamedTuple):
    """The predicted classes of one image.

    Args:
        path: Path of the image, as given; of images in memory, `#0`, `#1` and so on.
        classes: The classes of each task, the most probable first; empty if no label reaches its threshold.
    """

    path: str
    classes: tuple[ClassPrediction, ...]

    @property
    def label(self) -> str | None:
        """Name of the first class; None if there is none."""
        return self.classes[0].label if self.classes else None

    @property
    def probability(self) -> float | None:
        """Probability of the first class; None if there is none."""
        return self.classes[0].probability if self.classes else None


class PredictedBatch(NamedTuple):
    """The predictions of a batch, and name and reason of each unreadable file."""

    predictions: list[Prediction]
    unreadable: tuple[tuple[str, str], ...]


@torch.inference_mode()
def logits_of(loader: BatchLoader, images: Tensor) -> Tensor:
    """Return the logits of preprocessed images, computed in float32, on the CPU, shape (N, C)."""
    with torch.autocast(loader.device.type, enabled=False):
        logits: Tensor = loader.classifier.network(images)
    return logits.float().cpu()


def predict(loader: BatchLoader, chunks: Iterable[ImageChunk], *, top_k: int | None = None) -> Iterator[PredictedBatch]:
    """Yield the predictions of a classifier, batch by batch, in order.

    Args:
        loader: Loads the images for the classifier.
        chunks: The images.
        top_k: Classes per image and task, >= 1; None for one, or for the labels above their thresholds where an image
            may have several.
    """
    for batch in loader.load(chunks):
        ranked = rank_classes(loader.classifier, logits_of(loader, batch.images), top_k) if batch.names else []
        predictions = [Prediction(*each) for each in zip(batch.names, ranked, strict=True)]
        yield PredictedBatch(predictions, batch.unreadable)


def rank_classes(classifier: Classifier, logits: Tensor, top_k: int | None = None) -> list[tuple[ClassPrediction, ...]]:
    """Return the predicted classes of each image from logits of shape (N, C); see `predict`."""
    outputs = classifier.outputs
    probabilities = outputs.probabilities(logits)
    if outputs.multilabel and top_k is None:
        # In float64, as in the test.
        thresholds = torch.tensor(classifier.thresholds or [DEFAULT_THRESHOLD] * len(outputs), dtype=torch.float64)
        return _above_thresholds(outputs.names, probabilities, logits.double().sigmoid() >= thresholds)
    tasks = zip(names_of(outputs), outputs.split(logits), outputs.split(probabilities), strict=True)
    each = [_most_probable(names, own, values, top_k or 1) for names, own, values in tasks]
    return [tuple(predicted for task in image for predicted in task) for image in zip(*each, strict=True)]


def names_of(outputs: Outputs) -> list[tuple[str, ...]]:
    """Return the class names of each task; of several tasks, as `task:class`."""
    if len(outputs.tasks) == 1:
        return [outputs.names]
    return [tuple(f"{task.name}:{name}" for name in task.classes) for task in outputs.tasks]


def _most_probable(
    names: tuple[str, ...], logits: Tensor, probabilities: Tensor, count: int
) -> list[tuple[ClassPrediction, ...]]:
    # Ranked by logits, which differ even where probabilities round to 1.
    chosen = logits.topk(min(count, len(names)), dim=1).indices
    rows = zip(chosen.tolist(), probabilities.gather(1, chosen).tolist(), strict=True)
    return [
        tuple(ClassPrediction(rank, names[i], p) for rank, (i, p) in enumerate(zip(*row, strict=True), 1))
        for row in rows
    ]


def _above_thresholds(
    names: tuple[str, ...], probabilities: Tensor, is_above: Tensor
) -> list[tuple[ClassPrediction, ...]]:
    ranked = []
    for values, mask in zip(probabilities.tolist(), is_above.tolist(), strict=True):
        labels = [(p, name) for p, name, above in zip(values, names, mask, strict=True) if above]
        ordered = enumerate(sorted(labels, key=lambda label: -label[0]), 1)
        ranked.append(tuple(ClassPrediction(rank, name, p) for rank, (p, name) in ordered))
    return ranked
