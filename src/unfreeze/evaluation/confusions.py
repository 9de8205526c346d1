"""Which classes are taken for which."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from unfreeze.evaluation.predictions import TaskAnswers, answers_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.system.files import file_word, write_csv


def count_confusions(task: TaskAnswers) -> NDArray[np.int64]:
    """Return the confusion matrix of a task: images per true class (rows) and answer (columns)."""
    counts: NDArray[np.int64] = confusion_matrix(task.truth, task.answers, labels=np.arange(len(task.classes)))
    return counts


def commonest_confusions(counts: NDArray[np.int64], most: int = 15) -> list[tuple[int, int, int]]:
    """Return true class, answer and number of images of the mistakes that are made most often, the commonest first."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    best = np.argsort(mistakes, axis=None, kind="stable")[::-1][:most]
    rows, columns = np.unravel_index(best, mistakes.shape)
    found = zip(rows.tolist(), columns.tolist(), mistakes[rows, columns].tolist(), strict=True)
    return [(row, column, count) for row, column, count in found if count]


def write_confusion(record: RunRecord) -> None:
    """Write `confusion.csv`, a row per true class, a column per answer; a file per task where there are several."""
    kept = record.predictions
    if kept is None or "test" not in kept.splits:
        return
    tasks = answers_by_task(kept.splits["test"], kept.outputs)
    for task in tasks:
        name = f"confusion-{file_word(task.name)}.csv" if len(tasks) > 1 else "confusion.csv"
        counts = count_confusions(task).tolist()
        rows = ([name, *row] for name, row in zip(task.classes, counts, strict=True))
        write_csv(record.folder / name, ["true \\ predicted", *task.classes], rows)
