"""What a classifier says of images: probabilities, and the classes that these amount to."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unfreeze.inference.feeder import Feeder
from unfreeze.inference.inputs import Part
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import GIVEN_AT, Outputs


class Answer(NamedTuple):
    """One class of an image.

    Args:
        rank: From 1, the most probable; within its task.
        label: Name of the class; of several tasks, `task:class`.
        probability: In [0, 1].
    """

    rank: int
    label: str
    probability: float


class Prediction(NamedTuple):
    """What is said of one image.

    Args:
        path: As it was given; of images in memory, `#0`, `#1` and so on.
        answers: The most probable first, task by task; empty where no label is given.
    """

    path: str
    answers: tuple[Answer, ...]

    @property
    def label(self) -> str | None:
        """Name of the first class; None where no label is given."""
        return self.answers[0].label if self.answers else None

    @property
    def probability(self) -> float | None:
        """Of the first class; None where no label is given."""
        return self.answers[0].probability if self.answers else None


class Predicted(NamedTuple):
    """What is said of a batch, and which of its files can't be read, with the reasons."""

    predictions: list[Prediction]
    unreadable: tuple[tuple[str, str], ...]


@torch.inference_mode()
def logits_of(feeder: Feeder, images: Tensor) -> Tensor:
    """Return the logits of prepared images, computed in float32, on the CPU, shape (N, C)."""
    with torch.autocast(feeder.device.type, enabled=False):
        logits: Tensor = feeder.classifier.network(images)
    return logits.float().cpu()


def predict(feeder: Feeder, parts: Iterable[Part], *, top_k: int | None = None) -> Iterator[Predicted]:
    """Yield what a classifier says of images, batch by batch, in order.

    Args:
        feeder: Brings the images to the classifier.
        parts: The images.
        top_k: Classes per image, and per task, >= 1; None for one, and for the labels that are given where an image may
            have several.
    """
    for fed in feeder.feed(parts):
        answers = ranked_answers(feeder.classifier, logits_of(feeder, fed.images), top_k) if fed.names else []
        predictions = [Prediction(*each) for each in zip(fed.names, answers, strict=True)]
        yield Predicted(predictions, fed.unreadable)


def ranked_answers(classifier: Classifier, logits: Tensor, top_k: int | None = None) -> list[tuple[Answer, ...]]:
    """Return the classes of each image, out of logits of shape (N, C); see `predict`."""
    outputs = classifier.outputs
    probabilities = outputs.probabilities(logits)
    if outputs.multilabel and top_k is None:
        # As the test judges them.
        at = torch.tensor(classifier.thresholds or [GIVEN_AT] * len(outputs), dtype=torch.float64)
        return _given(outputs.names, probabilities, logits.double().sigmoid() >= at)
    tasks = zip(names_of(outputs), outputs.split(logits), outputs.split(probabilities), strict=True)
    each = [_most_probable(names, own, sure, top_k or 1) for names, own, sure in tasks]
    return [tuple(answer for task in image for answer in task) for image in zip(*each, strict=True)]


def names_of(outputs: Outputs) -> list[tuple[str, ...]]:
    """Return the names of each task's classes, with the task's before it where there are several: `task:class`."""
    if len(outputs.tasks) == 1:
        return [outputs.names]
    return [tuple(f"{task.name}:{name}" for name in task.classes) for task in outputs.tasks]


def _most_probable(names: tuple[str, ...], logits: Tensor, sure: Tensor, count: int) -> list[tuple[Answer, ...]]:
    # By logits, which still differ where probabilities are one.
    chosen = logits.topk(min(count, len(names)), dim=1).indices
    rows = zip(chosen.tolist(), sure.gather(1, chosen).tolist(), strict=True)
    return [tuple(Answer(rank, names[i], p) for rank, (i, p) in enumerate(zip(*row, strict=True), 1)) for row in rows]


def _given(names: tuple[str, ...], sure: Tensor, given: Tensor) -> list[tuple[Answer, ...]]:
    answers = []
    for probabilities, is_given in zip(sure.tolist(), given.tolist(), strict=True):
        labels = [(p, name) for p, name, there in zip(probabilities, names, is_given, strict=True) if there]
        ranked = enumerate(sorted(labels, key=lambda label: -label[0]), 1)
        answers.append(tuple(Answer(rank, name, p) for rank, (p, name) in ranked))
    return answers
