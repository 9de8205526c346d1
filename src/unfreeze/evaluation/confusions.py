"""Confusion matrices, their most frequent confusions, and their CSV file."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from unfreeze.evaluation.predictions import TaskPredictions, predictions_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.system.files import file_word, write_csv


def count_confusions(task: TaskPredictions) -> NDArray[np.int64]:
    """Return the confusion matrix of a task: images per true class (rows) and predicted class (columns)."""
    counts: NDArray[np.int64] = confusion_matrix(task.truth, task.predicted, labels=np.arange(len(task.classes)))
    return counts


def most_frequent_confusions(counts: NDArray[np.int64], limit: int = 15) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes as (true class, predicted class, images), in descending order."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    best = np.argsort(mistakes, axis=None, kind="stable")[::-1][:limit]
    rows, columns = np.unravel_index(best, mistakes.shape)
    found = zip(rows.tolist(), columns.tolist(), mistakes[rows, columns].tolist(), strict=True)
    return [(row, column, count) for row, column, count in found if count]


def write_confusion(record: RunRecord) -> None:
    """Write `confusion.csv`, a row per true class and a column per predicted class; one file per task."""
    stored = record.predictions
    if stored is None or "test" not in stored.splits:
        return
    tasks = predictions_by_task(stored.splits["test"], stored.outputs)
    for task in tasks:
        name = f"confusion-{file_word(task.name)}.csv" if len(tasks) > 1 else "confusion.csv"
        counts = count_confusions(task).tolist()
        rows = ([name, *row] for name, row in zip(task.classes, counts, strict=True))
        write_csv(record.directory.path / name, ["true \\ predicted", *task.classes], rows)
