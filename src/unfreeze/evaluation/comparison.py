"""Two runs on the same test images: whether one is better, and where they differ."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.intervals import LEVEL, share_interval
from unfreeze.evaluation.predictions import PREDICTIONS_FILE, KeptPredictions, Predictions, answers_by_task
from unfreeze.evaluation.record import read_record
from unfreeze.system.files import write_csv

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Difference:
    """An image on which two runs differ: its name, its class, and what each said of it."""

    image: str
    true: str
    first: str
    second: str
    right: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the images that both were judged on.

    Args:
        images: How many they are.
        accuracies: Of the first and the second run, in [0, 1].
        only_first: Images that the first run alone has right.
        only_second: Images that the second run alone has right.
        p_value: Of McNemar's exact test that they are as often right (McNemar 1947).
        interval: 95 % of the second's accuracy less the first's, by resampling images.
        smallest: The least difference in accuracy that so many images would tell in four cases of five.
        differences: Images of which one run alone has the class right, or each says something else.
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
        """What that comes to."""
        gain = self.accuracies[1] - self.accuracies[0]
        ends = f"[{100 * self.interval[0]:+.1f}, {100 * self.interval[1]:+.1f}]"
        told = f"{100 * gain:+.1f} points {ends}, p = {self.p_value:.2g}"
        if self.p_value < 1 - LEVEL:
            return f"The {'second' if gain > 0 else 'first'} run is better: {told}."
        if not self.only_first + self.only_second:
            return f"No difference can be told: both are right on the same images, {self.images:,} of them judged."
        needed = f"about {100 * self.smallest:.1f} points" if self.smallest < 1 else "more images"
        return f"No difference can be told: {told}. With {self.images:,} images it would take {needed}."


def compare_predictions(first: KeptPredictions, second: KeptPredictions, split: str) -> Comparison:
    """Return how two runs differ on the images of a split that both have, whatever their order and file names.

    Args:
        first: Of the one run.
        second: Of the other.
        split: "val" or "test".

    Raises:
        UnfreezeError: If they tell apart other things, or share no image.
    """
    if first.outputs.multilabel or second.outputs.multilabel or len(first.outputs.tasks) > 1:
        raise UnfreezeError("compare-runs: want runs of one class per image; for others, see their result.json")
    if set(first.outputs.names) != set(second.outputs.names):
        odd = sorted(set(first.outputs.names) ^ set(second.outputs.names))
        raise UnfreezeError(f"compare-runs: the runs have other classes; only one of them has {odd[0]!r}")
    ours, theirs = _shared(first.splits[split], second.splits[split])
    one, other = answers_by_task(ours, first.outputs)[0], answers_by_task(theirs, second.outputs)[0]
    names = one.classes
    number_of = {name: number for number, name in enumerate(names)}
    answers = np.array([number_of[other.classes[answer]] for answer in other.answers], dtype=np.int64)
    labels = np.array([number_of[other.classes[label]] for label in other.truth], dtype=np.int64)
    if (labels != one.truth).any():
        raise UnfreezeError(
            f"compare-runs: the runs have {int((labels != one.truth).sum()):,} images under other labels"
        )
    right_one, right_other = one.answers == one.truth, answers == one.truth
    b, c = int((right_one & ~right_other).sum()), int((right_other & ~right_one).sum())
    differ = np.flatnonzero(one.answers != answers)
    return Comparison(
        images=len(one.truth),
        accuracies=(float(right_one.mean()), float(right_other.mean())),
        only_first=b,
        only_second=c,
        p_value=float(binomtest(b, b + c).pvalue) if b + c else 1.0,
        interval=_interval(right_other.astype(np.float64) - right_one),
        smallest=_smallest(len(one.truth), b + c),
        differences=tuple(
            Difference(
                image=ours.names[row],
                true=names[one.truth[row]],
                first=names[one.answers[row]],
                second=names[answers[row]],
                right="first" if right_one[row] else "second" if right_other[row] else "neither",
            )
            for row in differ
        ),
    )


def compare_kept(first: Path, second: Path, split: str) -> Comparison:
    """Return how two runs differ, from what their directories have kept.

    Raises:
        UnfreezeError: If one of them has kept no answers for the split.
    """
    kept = []
    for folder in (first, second):
        file = folder / PREDICTIONS_FILE
        answers = KeptPredictions.load(file) if file.is_file() else None
        if answers is None or split not in answers.splits:
            raise UnfreezeError(f"compare-runs: {read_record(folder).lacks(split)}")
        kept.append(answers)
    return compare_predictions(kept[0], kept[1], split)


def _shared(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Return both answers for the images that both have, in one order; equal images are told apart by their turn."""
    places: dict[bytes, list[int]] = {}
    for row, digest in enumerate(second.digests):
        places.setdefault(digest.tobytes(), []).append(row)
    pairs = [
        (row, places[digest.tobytes()].pop(0))
        for row, digest in enumerate(first.digests)
        if places.get(digest.tobytes())
    ]
    if not pairs:
        raise UnfreezeError("compare-runs: no image was judged by both runs; want runs with one data.seed, on one data")
    rows, others = np.array(pairs, dtype=np.int64).T
    return first.take(np.ascontiguousarray(rows)), second.take(np.ascontiguousarray(others))


def _interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    if len(set(gains.tolist())) == 1:  # which no resample would change
        unseen = 1 - share_interval(len(gains), len(gains))[0]
        return max(-1.0, gains[0] - unseen), min(1.0, gains[0] + unseen)
    draw = np.random.default_rng(_SEED)
    # What is resampled is how many images gain, lose, or stay as they were.
    shares = [float((gains == value).mean()) for value in (1.0, -1.0)]
    drawn = draw.multinomial(len(gains), [*shares, 1 - sum(shares)], size=_RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / len(gains), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _smallest(images: int, discordant: int) -> float:
    """Return the difference that McNemar's test finds with power 0.8 (Connor 1987), where so many answers differ."""
    share = max(discordant, 1) / images
    return float((1.96 + 0.84) * np.sqrt(share / images))


def write_differences(comparison: Comparison, file: Path) -> None:
    """Write the images on which two runs differ as a table."""
    write_csv(file, [field.name for field in fields(Difference)], map(astuple, comparison.differences))
