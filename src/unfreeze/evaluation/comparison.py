"""Paired comparison of two runs on the same images: McNemar's test, an interval, and the images that differ."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.intervals import LEVEL, share_interval
from unfreeze.evaluation.predictions import Predictions, StoredPredictions, TaskPredictions, predictions_by_task
from unfreeze.evaluation.record import read_record
from unfreeze.results.run_directory import RunDirectory
from unfreeze.system.files import write_csv

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Difference:
    """An image on which two runs differ: its name, its class, and the class that each run predicts."""

    image: str
    true: str
    first: str
    second: str
    right: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the images that both were evaluated on.

    Args:
        images: Number of these images.
        accuracies: Of the first and the second run, in [0, 1].
        only_first: Number of images that only the first run classifies correctly.
        only_second: Number of images that only the second run classifies correctly.
        p_value: Of McNemar's exact test of equal accuracy (McNemar 1947).
        interval: 95 % bootstrap interval of the second accuracy minus the first.
        smallest: The least difference in accuracy that this many images detect with power 0.8.
        differences: Images for which the two runs predict different classes.
    """

    images: int
    accuracies: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float
    interval: tuple[float, float]
    smallest: float
    differences: tuple[Difference, ...]

    @property
    def sentence(self) -> str:
        """The result of the comparison as a sentence."""
        gain = self.accuracies[1] - self.accuracies[0]
        ends = f"[{100 * self.interval[0]:+.1f}, {100 * self.interval[1]:+.1f}]"
        effect = f"{100 * gain:+.1f} points {ends}, p = {self.p_value:.2g}"
        if self.p_value < 1 - LEVEL:
            return f"The {'second' if gain > 0 else 'first'} run is better: {effect}."
        if not self.only_first + self.only_second:
            return f"No significant difference: both are right on the same images, of {self.images:,} evaluated."
        needed = f"about {100 * self.smallest:.1f} points" if self.smallest < 1 else "more images"
        return f"No significant difference: {effect}. With {self.images:,} images it would take {needed}."


def compare_predictions(first: StoredPredictions, second: StoredPredictions, split: str) -> Comparison:
    """Compare two runs on the images of a split that both have, in whatever order and under whatever file names.

    Args:
        first: Predictions of the first run.
        second: Predictions of the second run.
        split: "val" or "test".

    Raises:
        UnfreezeError: If the runs have different classes or share no image, or their labels differ.
    """
    _check_comparable(first, second)
    ours, theirs = _shared(first.splits[split], second.splits[split])
    one, other = predictions_by_task(ours, first.outputs)[0], predictions_by_task(theirs, second.outputs)[0]
    predicted = _second_predictions(one, other)
    one_correct, other_correct = one.predicted == one.truth, predicted == one.truth
    b, c = int((one_correct & ~other_correct).sum()), int((other_correct & ~one_correct).sum())
    return Comparison(
        images=len(one.truth),
        accuracies=(float(one_correct.mean()), float(other_correct.mean())),
        only_first=b,
        only_second=c,
        p_value=float(binomtest(b, b + c).pvalue) if b + c else 1.0,
        interval=_interval(other_correct.astype(np.float64) - one_correct),
        smallest=_smallest(len(one.truth), b + c),
        differences=_differences(ours.names, one, predicted),
    )


def _check_comparable(first: StoredPredictions, second: StoredPredictions) -> None:
    if first.outputs.multilabel or second.outputs.multilabel or len(first.outputs.tasks) > 1:
        raise UnfreezeError("compare-runs: want runs of one class per image; for others, see their result.json")
    if set(first.outputs.names) != set(second.outputs.names):
        odd = sorted(set(first.outputs.names) ^ set(second.outputs.names))
        raise UnfreezeError(f"compare-runs: the runs have other classes; only one of them has {odd[0]!r}")


def _second_predictions(one: TaskPredictions, other: TaskPredictions) -> NDArray[np.int64]:
    """Return the second run's predictions in the class order of the first; refuse different labels."""
    number_of = {name: number for number, name in enumerate(one.classes)}
    predicted = np.array([number_of[other.classes[each]] for each in other.predicted], dtype=np.int64)
    labels = np.array([number_of[other.classes[label]] for label in other.truth], dtype=np.int64)
    if (labels != one.truth).any():
        raise UnfreezeError(
            f"compare-runs: the runs have {int((labels != one.truth).sum()):,} images under other labels"
        )
    return predicted


def _differences(names: tuple[str, ...], one: TaskPredictions, predicted: NDArray[np.int64]) -> tuple[Difference, ...]:
    one_correct, other_correct = one.predicted == one.truth, predicted == one.truth
    return tuple(
        Difference(
            image=names[row],
            true=one.classes[one.truth[row]],
            first=one.classes[one.predicted[row]],
            second=one.classes[predicted[row]],
            right="first" if one_correct[row] else "second" if other_correct[row] else "neither",
        )
        for row in np.flatnonzero(one.predicted != predicted)
    )


def compare_directories(first: Path, second: Path, split: str) -> Comparison:
    """Compare two runs by the predictions stored in their directories.

    Raises:
        UnfreezeError: If one of them has no predictions for the split.
    """
    stored = []
    for folder in (first, second):
        directory = RunDirectory(folder)
        file = directory.predictions_file
        predictions = StoredPredictions.load(file) if file.is_file() else None
        if predictions is None or split not in predictions.splits:
            raise UnfreezeError(f"compare-runs: {read_record(directory).missing_predictions_error(split)}")
        stored.append(predictions)
    return compare_predictions(stored[0], stored[1], split)


def _shared(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Return both predictions for the shared images, in one order; duplicate images are paired in their order."""
    rows_of: dict[bytes, list[int]] = {}
    for row, digest in enumerate(second.digests):
        rows_of.setdefault(digest.tobytes(), []).append(row)
    pairs = [
        (row, rows_of[digest.tobytes()].pop(0))
        for row, digest in enumerate(first.digests)
        if rows_of.get(digest.tobytes())
    ]
    if not pairs:
        raise UnfreezeError(
            "compare-runs: no image was evaluated by both runs; want runs with one data.seed, on one data"
        )
    rows, others = np.array(pairs, dtype=np.int64).T
    return first.take(np.ascontiguousarray(rows)), second.take(np.ascontiguousarray(others))


def _interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    if len(set(gains.tolist())) == 1:  # every resample would be equal
        unseen = 1 - share_interval(len(gains), len(gains))[0]
        return max(-1.0, gains[0] - unseen), min(1.0, gains[0] + unseen)
    draw = np.random.default_rng(_SEED)
    # Resampling images is resampling the numbers of gains, losses and ties.
    shares = [float((gains == value).mean()) for value in (1.0, -1.0)]
    drawn = draw.multinomial(len(gains), [*shares, 1 - sum(shares)], size=_RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / len(gains), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _smallest(images: int, discordant: int) -> float:
    """Return the difference that McNemar's test detects with power 0.8 (Connor 1987), given the discordant pairs."""
    share = max(discordant, 1) / images
    return float((1.96 + 0.84) * np.sqrt(share / images))


def write_differences(comparison: Comparison, file: Path) -> None:
    """Write the images on which two runs differ as a table."""
    write_csv(file, [field.name for field in fields(Difference)], map(astuple, comparison.differences))
