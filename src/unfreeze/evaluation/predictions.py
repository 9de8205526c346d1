"""Predictions for the images of a split, stored for metrics, pictures and comparisons."""

import json
from collections.abc import Mapping, Sequence
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

_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits and labels of some images.

    Args:
        logits: float32, shape (N, C).
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        indices: Of the images in their source, int64, shape (N,).
        names: File names or other names of the images, length N.
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
        """Return the predictions for some of the images, by row."""
        index = torch.from_numpy(rows)
        names = tuple(self.names[row] for row in rows)
        return Predictions(self.logits[index], self.labels[index], self.indices[rows], names, self.digests[rows])


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """The predicted classes of one task in which each image has one class.

    Args:
        name: Of the task.
        classes: Names of the classes.
        truth: Labels, shape (N,).
        predicted: The most probable class, shape (N,).
        confidence: Its probability, in [0, 1], shape (N,).
        true_probability: That of the true class, in [0, 1], shape (N,).
    """

    name: str
    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    true_probability: NDArray[np.float64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Mask of the correct predictions, shape (N,)."""
        return np.equal(self.truth, self.predicted)


def predictions_by_task(predictions: Predictions, outputs: Outputs) -> list[TaskPredictions]:
    """Return the predictions of each task; an empty list for multi-label outputs."""
    if outputs.multilabel:
        return []
    columns = predictions.labels.view(len(predictions), -1).T.numpy()
    return [
        _task_predictions(task, own, truth)
        for task, own, truth in zip(outputs.tasks, outputs.split(predictions.logits), columns, strict=True)
    ]


def _task_predictions(task: TaskClasses, logits: Tensor, truth: NDArray[np.int64]) -> TaskPredictions:
    probabilities = logits.double().softmax(dim=1).numpy()
    predicted = logits.argmax(dim=1).numpy()
    rows = np.arange(len(truth))
    return TaskPredictions(
        task.name, task.classes, truth, predicted, probabilities[rows, predicted], probabilities[rows, truth]
    )


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """The predictions of a run by split, as its directory stores them.

    Args:
        splits: By name, such as "val" and "test".
        outputs: Tasks and classes of the logits.
        thresholds: Decision threshold of each label; None for 0.5.
        temperatures: Temperature of each task, fitted on validation; None if none was fitted.
        train_digests: Hashes of the training images, dtype V16, shape (N,).
    """

    splits: Mapping[str, Predictions]
    outputs: Outputs
    thresholds: tuple[float, ...] | None
    temperatures: tuple[float, ...] | None
    train_digests: NDArray[np.void]

    def save(self, file: Path) -> None:
        """Write the predictions to an .npz file, atomically."""
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
    def load(cls, file: Path) -> "StoredPredictions":
        """Return the predictions that `save` wrote.

        Raises:
            UnfreezeError: If the file is missing or damaged, or has another schema.
        """
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
                about = json.loads(saved["about"].tobytes())
                if about["schema"] != _SCHEMA:
                    raise UnfreezeError(f"{file}: has schema {about['schema']}, want {_SCHEMA}; evaluate the run again")
                splits = {split: _load_split(saved, split, names) for split, names in about["names"].items()}
                train_digests = saved["train_digests"].view("V16")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UnfreezeError(f"{file}: can't be read ({first_line(error)})") from None
        thresholds, temperatures = (about[key] and tuple(about[key]) for key in ("thresholds", "temperatures"))
        return cls(splits, Outputs.from_record(about["outputs"]), thresholds, temperatures, train_digests)


def _load_split(saved: Mapping[str, Any], split: str, names: Sequence[str]) -> Predictions:
    return Predictions(
        logits=torch.from_numpy(saved[f"{split}_logits"]),
        labels=torch.from_numpy(saved[f"{split}_labels"]),
        indices=saved[f"{split}_indices"],
        names=tuple(names),
        digests=saved[f"{split}_digests"].view("V16"),
    )
