"""Predictions as rows of path, rank, class and probability: a table, CSV, or lines of JSON."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import numpy as np

from unfreeze.data.sources.images import printable
from unfreeze.inference.prediction import PredictedBatch, Prediction

COLUMNS = ("path", "rank", "class", "probability")
FORMATS = ("table", "csv", "jsonl")
_TO_QUOTE = re.compile(r'[",\r\n]')

Row = tuple[str, int, str | None, float | None]


def write_predictions(
    predicted: Iterable[PredictedBatch], stream: BinaryIO, *, form: str, classes: Sequence[str]
) -> int:
    """Write predictions as they arrive, report unreadable files on standard error, and return their number.

    Args:
        predicted: Batches of predictions.
        stream: The output; file names keep their bytes, even if these are not valid text.
        form: One of `FORMATS`.
        classes: Names of the classes, for the width of a table.
    """
    text: dict[str, Callable[[Sequence[Row]], str]] = {"table": _Table(classes), "csv": _csv, "jsonl": _jsonl}
    if form == "csv":
        stream.write((",".join(COLUMNS) + "\n").encode())
    bad = 0
    for predictions, unreadable in predicted:
        for name, reason in unreadable:
            bad += 1
            sys.stderr.write(f"{printable(name)}: {reason}\n")
        rows = [row for prediction in predictions for row in rows_of(prediction)]
        stream.write(text[form](rows).encode("utf-8", "surrogateescape"))
        stream.flush()
    return bad


def rows_of(prediction: Prediction) -> list[Row]:
    """Return a row per class of an image; one row of rank 0 without a class for an image without a label."""
    return [(prediction.path, *each) for each in prediction.classes] or [(prediction.path, 0, None, None)]


def _csv(rows: Sequence[Row]) -> str:
    return "".join(
        f"{_quoted(path)},{rank},{_quoted(label or '')},{_number(probability)}\n"
        for path, rank, label, probability in rows
    )


def _jsonl(rows: Sequence[Row]) -> str:
    return "".join(
        f'{{"path": {json.dumps(path)}, "rank": {rank}, "class": {json.dumps(label)}, '
        f'"probability": {_number(probability) or "null"}}}\n'
        for path, rank, label, probability in rows
    )


class _Table:
    """A table whose columns are as wide as the rows so far require.

    Args:
        classes: Names of the classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        from rich.cells import cell_len

        self._length = cell_len
        self._path = 0
        self._label = max(cell_len(printable(name)) for name in [*classes, COLUMNS[2]])

    def __call__(self, rows: Sequence[Row]) -> str:
        if not rows:
            return ""
        lines = [
            (printable(path), str(rank), printable(label or "-"), "-" if probability is None else f"{probability:.4f}")
            for path, rank, label, probability in rows
        ]
        heading = [] if self._path else [COLUMNS]
        self._path = max(self._path, *(self._length(line[0]) for line in [*lines, *heading]))
        return "".join(map(self._line, [*heading, *lines]))

    def _line(self, cells: tuple[str, ...]) -> str:
        path, rank, label, probability = cells
        gaps = " " * (self._path - self._length(path)), " " * (self._label - self._length(label))
        return f"{path}{gaps[0]}  {rank:>4}  {label}{gaps[1]}  {probability:>{len(COLUMNS[3])}}\n"


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if _TO_QUOTE.search(field) else field


def _number(probability: float | None) -> str:
    """Return the shortest decimal that rounds to this float32."""
    return "" if probability is None else str(np.float32(probability))
