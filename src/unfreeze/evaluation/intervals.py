"""95 % bootstrap intervals of the figures of a test (Efron and Tibshirani 1993, section 13.3)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.stats import binomtest

LEVEL = 0.95
_RESAMPLES = 1000
_FEWEST_RESAMPLES = 200
_DRAWS = 40_000_000
"""Draws of images in all, a second or two: of more than 40,000 images fewer resamples are taken, and are needed."""

_CHUNK = 1 << 22
_SEED = 0

Interval = tuple[float, float]


def class_intervals(truth: NDArray[np.int64], predicted: NDArray[np.int64], *, num_classes: int) -> dict[str, Interval]:
    """Return the intervals of what is known of answers where an image has one class.

    Args:
        truth: Labels, shape (N,), N >= 1.
        predicted: Answers, shape (N,).
        num_classes: Of labels and answers.

    Returns:
        Lower and upper end for acc, acc_balanced, precision_macro, recall_macro and f1_macro. Where all or no images
        are right, resampling has nothing to draw from: the first two and recall_macro are exact then, and the others,
        as any that is the same in each resample, are left out.
    """
    images = len(truth)
    said = _one_hot(predicted, num_classes)
    true = _one_hot(truth, num_classes)
    right = said.multiply(true).tocsr()
    figures: list[Mapping[str, NDArray[np.float64]]] = []
    for weights in _resamples(images):
        hits = weights @ right
        figures.append(
            {"acc": hits.sum(axis=1) / images, **_macro(hits, weights @ said, weights @ true, balanced=True)}
        )
    count = int((truth == predicted).sum())
    found = _ends(figures) | {"acc": share_interval(count, images, _column(figures, "acc"))}
    if count in (0, images):
        low = _least_mean_recall(np.bincount(truth))
        exact = (low, 1.0) if count else (0.0, 1 - low)
        found |= {"acc_balanced": exact, "recall_macro": exact}
    return found


def label_intervals(truth: NDArray[np.int64], given: NDArray[np.int64]) -> dict[str, Interval]:
    """Return the intervals of what is known of answers where an image may have several labels.

    Args:
        truth: 0 or 1, shape (N, L), N >= 1.
        given: 0 or 1, shape (N, L).

    Returns:
        Lower and upper end for acc, acc_exact, precision_macro, recall_macro and f1_macro; of those that are the same
        in each resample, acc_exact alone.
    """
    right, exact = (truth == given).mean(axis=1), (truth == given).all(axis=1).astype(np.float64)
    said, true, hits = (csr_array(values.astype(np.float64)) for values in (given, truth, truth * given))
    figures: list[Mapping[str, NDArray[np.float64]]] = []
    for weights in _resamples(len(truth)):
        means = {"acc": weights @ right / len(truth), "acc_exact": weights @ exact / len(truth)}
        figures.append({**means, **_macro(weights @ hits, weights @ said, weights @ true, balanced=False)})
    whole = share_interval(int(exact.sum()), len(truth), _column(figures, "acc_exact"))
    return _ends(figures) | {"acc_exact": whole}


def share_interval(right: int, count: int, resampled: NDArray[np.float64] | None = None) -> Interval:
    """Return the interval of a share: by resampling, and exact (Clopper and Pearson 1934) where all or none are right.

    Args:
        right: How many are, in [0, count].
        count: Of how many, >= 1.
        resampled: The share in each resample; None for the exact interval.
    """
    if resampled is not None and 0 < right < count:
        return _quantiles(resampled)
    found = binomtest(right, count).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def _least_mean_recall(support: NDArray[np.int64]) -> float:
    """Return the lower end of the mean recall where all images are right: below it, that is too unlikely (2.5 %).

    Of all recalls p with sum(n * log(p)) = log(0.025) these are the ones with the least mean: p = min(1, c * n). For
    classes of one size it is the exact end for the accuracy.

    Args:
        support: Images per class, shape (C,); classes without images do not count.
    """
    counts = support[support > 0].astype(np.float64)
    least = np.log((1 - LEVEL) / 2)

    def excess(log_c: float) -> float:
        return float((counts * np.minimum(0, log_c + np.log(counts))).sum() - least)

    # Of classes of one size the first is the root itself, on either side of it by rounding.
    log_c = brentq(excess, least / counts.sum() - np.log(counts.max()) - 1, -np.log(counts.min()))
    return float(np.minimum(1, np.exp(log_c) * counts).mean())


def _one_hot(classes: NDArray[np.int64], num_classes: int) -> csr_array:
    count = len(classes)
    return csr_array((np.ones(count), classes, np.arange(count + 1)), shape=(count, num_classes))


def _resamples(images: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image stands in some resamples, shape (resamples, images), the same ones each time."""
    draw = np.random.default_rng(_SEED)
    left = min(_RESAMPLES, max(_FEWEST_RESAMPLES, _DRAWS // images))
    at_once = max(1, _CHUNK // images)
    while left > 0:
        drawn = draw.integers(images, size=(min(left, at_once), images))
        yield np.stack([np.bincount(one, minlength=images) for one in drawn]).astype(np.float64)
        left -= at_once


def _macro(hits: Any, said: Any, true: Any, *, balanced: bool) -> dict[str, NDArray[np.float64]]:
    """Return means over the classes of each resample, as scikit-learn's `average="macro"` has them.

    Args:
        hits: Right answers per class, shape (resamples, C).
        said: Answers per class.
        true: Images per class.
        balanced: Whether the mean recall over the classes that have images is wanted too.
    """
    counted = (said + true) > 0
    classes = np.maximum(1, counted.sum(axis=1))
    precision, recall = hits / np.maximum(1, said), hits / np.maximum(1, true)
    f1 = 2 * hits / np.maximum(1, said + true)
    means = {
        "precision_macro": precision.sum(axis=1) / classes,
        "recall_macro": recall.sum(axis=1) / classes,
        "f1_macro": f1.sum(axis=1) / classes,
    }
    if balanced:
        means["acc_balanced"] = recall.sum(axis=1) / np.maximum(1, (true > 0).sum(axis=1))
    return means


def _column(figures: list[Mapping[str, NDArray[np.float64]]], key: str) -> NDArray[np.float64]:
    return np.concatenate([each[key] for each in figures])


def _ends(figures: list[Mapping[str, NDArray[np.float64]]]) -> dict[str, Interval]:
    columns = {key: _column(figures, key) for key in figures[0]}
    return {key: _quantiles(values) for key, values in columns.items() if np.ptp(values) > 0}


def _quantiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
