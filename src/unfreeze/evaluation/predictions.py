"""What a model said of the images of a split: all that a run is judged, pictured and compared by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.system.files import replacing

PREDICTIONS_FILE = "predictions.npz"
_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers for some images.

    Args:
        logits: float32, shape (N, C).
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        indices: Of the images in their source, int64, shape (N,).
        names: What a person calls each image, length N.
        digests: A hash of each image's content, dtype V16, shape (N,).
    """

    logits: Tensor
    labels: Tensor
    indices: NDArray[np.int64]
    names: tuple[str, ...]
    digests: NDArray[np.void]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Predictions":
        """Return the answers for some of the images."""
        index = torch.from_numpy(rows)
        names = tuple(self.names[row] for row in rows)
        return Predictions(self.logits[index], self.labels[index], self.indices[rows], names, self.digests[rows])


@dataclass(frozen=True, eq=False)
class TaskAnswers:
    """The answers for one task whose images have one class each, as pictures need them.

    Args:
        name: Of the task.
        classes: Names of the classes.
        truth: Labels, shape (N,).
        answers: The most probable class, shape (N,).
        confidence: Its probability, in [0, 1], shape (N,).
        true_probability: That of the true class, in [0, 1], shape (N,).
    """

    name: str
    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    answers: NDArray[np.int64]
    confidence: NDArray[np.float64]
    true_probability: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right."""
        return np.equal(self.truth, self.answers)


def answers_by_task(predictions: Predictions, outputs: Outputs) -> list[TaskAnswers]:
    """Return the answers of each task; none where an image may have several labels."""
    if outputs.multilabel:
        return []
    columns = predictions.labels.view(len(predictions), -1).T.numpy()
    return [
        _answers_of(task, own, truth)
        for task, own, truth in zip(outputs.tasks, outputs.split(predictions.logits), columns, strict=True)
    ]


def _answers_of(task: TaskClasses, logits: Tensor, truth: NDArray[np.int64]) -> TaskAnswers:
    probabilities = logits.double().softmax(dim=1).numpy()
    answers = logits.argmax(dim=1).numpy()
    rows = np.arange(len(truth))
    return TaskAnswers(
        task.name, task.classes, truth, answers, probabilities[rows, answers], probabilities[rows, truth]
    )


@dataclass(frozen=True, eq=False)
class KeptPredictions:
    """The predictions of a run, by split, with what they stand for.

    Args:
        splits: By name, such as "val" and "test".
        outputs: What the logits stand for.
        thresholds: Of labels; None for 0.5.
        temperatures: What validation divides the logits of each task by; None where it was not asked.
        train_digests: Hashes of the images that were trained on, dtype V16, shape (N,).
    """

    splits: Mapping[str, Predictions]
    outputs: Outputs
    thresholds: tuple[float, ...] | None
    temperatures: tuple[float, ...] | None
    train_digests: NDArray[np.void]

    def save(self, file: Path) -> None:
        """Write everything to an .npz file, whole or not at all."""
        about = {
            "schema": _SCHEMA,
            "outputs": self.outputs.to_record(),
            "thresholds": self.thresholds,
            "temperatures": self.temperatures,
            "names": {split: each.names for split, each in self.splits.items()},
        }
        arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
        arrays["train_digests"] = self.train_digests.view(np.uint8)
        for split, each in self.splits.items():
            arrays[f"{split}_logits"] = each.logits.numpy()
            arrays[f"{split}_labels"] = each.labels.numpy()
            arrays[f"{split}_indices"] = each.indices
            arrays[f"{split}_digests"] = each.digests.view(np.uint8)
        with replacing(file) as building, building.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, file: Path) -> "KeptPredictions":
        """Return what `save` wrote.

        Raises:
            UnfreezeError: If the file is not there, or not such a one.
        """
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
                about = json.loads(saved["about"].tobytes())
                if about["schema"] != _SCHEMA:
                    raise UnfreezeError(f"{file}: has schema {about['schema']}, want {_SCHEMA}; evaluate the run anew")
                splits = {
                    split: Predictions(
                        logits=torch.from_numpy(saved[f"{split}_logits"]),
                        labels=torch.from_numpy(saved[f"{split}_labels"]),
                        indices=saved[f"{split}_indices"],
                        names=tuple(names),
                        digests=saved[f"{split}_digests"].view("V16"),
                    )
                    for split, names in about["names"].items()
                }
                train_digests = saved["train_digests"].view("V16")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UnfreezeError(f"{file}: can't be read ({first_line(error)})") from None
        thresholds, temperatures = (about[key] and tuple(about[key]) for key in ("thresholds", "temperatures"))
        return cls(splits, Outputs.from_record(about["outputs"]), thresholds, temperatures, train_digests)
