"""95 % bootstrap intervals of test metrics (Efron and Tibshirani 1993, section 13.3)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.stats import binomtest

LEVEL = 0.95
_RESAMPLES = 1000
_MIN_RESAMPLES = 200
_DRAWS = 40_000_000
"""Total draws, a second or two: beyond 40,000 images fewer resamples are taken, and suffice."""

_CHUNK = 1 << 22
_SEED = 0

Interval = tuple[float, float]


def class_intervals(truth: NDArray[np.int64], predicted: NDArray[np.int64], *, num_classes: int) -> dict[str, Interval]:
    """Return the intervals of the metrics of one class per image.

    Args:
        truth: Labels, shape (N,), N >= 1.
        predicted: Predicted classes, shape (N,).
        num_classes: Number of classes.

    Returns:
        Lower and upper end for acc, acc_balanced, precision_macro, recall_macro and f1_macro. If all or no predictions
        are correct, all resamples are equal: acc, acc_balanced and recall_macro then have exact intervals, and the
        others are left out, as is any metric with the same value in each resample.
    """
    images = len(truth)
    found = _one_hot(predicted, num_classes)
    true = _one_hot(truth, num_classes)
    correct = found.multiply(true).tocsr()
    metrics: list[Mapping[str, NDArray[np.float64]]] = []
    for weights in _resamples(images):
        hits = weights @ correct
        metrics.append(
            {"acc": hits.sum(axis=1) / images, **_macro(hits, weights @ found, weights @ true, balanced=True)}
        )
    count = int((truth == predicted).sum())
    intervals = _ends(metrics) | {"acc": share_interval(count, images, _column(metrics, "acc"))}
    if count in (0, images):
        low = _least_mean_recall(np.bincount(truth))
        exact = (low, 1.0) if count else (0.0, 1 - low)
        intervals |= {"acc_balanced": exact, "recall_macro": exact}
    return intervals


def label_intervals(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, Interval]:
    """Return the intervals of the metrics of several labels per image.

    Args:
        truth: 0 or 1, shape (N, L), N >= 1.
        predicted: 0 or 1, shape (N, L).

    Returns:
        Lower and upper end for acc, acc_exact, precision_macro, recall_macro and f1_macro; a metric with the same value
        in each resample is left out, except acc_exact.
    """
    correct, exact = (truth == predicted).mean(axis=1), (truth == predicted).all(axis=1).astype(np.float64)
    found, true, hits = (csr_array(values.astype(np.float64)) for values in (predicted, truth, truth * predicted))
    metrics: list[Mapping[str, NDArray[np.float64]]] = []
    for weights in _resamples(len(truth)):
        means = {"acc": weights @ correct / len(truth), "acc_exact": weights @ exact / len(truth)}
        metrics.append({**means, **_macro(weights @ hits, weights @ found, weights @ true, balanced=False)})
    whole = share_interval(int(exact.sum()), len(truth), _column(metrics, "acc_exact"))
    return _ends(metrics) | {"acc_exact": whole}


def share_interval(correct: int, count: int, resampled: NDArray[np.float64] | None = None) -> Interval:
    """Return the interval of a proportion: bootstrap, or exact (Clopper and Pearson 1934) at 0 and 1.

    Args:
        correct: Number of successes, in [0, count].
        count: Number of trials, >= 1.
        resampled: The proportion in each resample; None for the exact interval.
    """
    if resampled is not None and 0 < correct < count:
        return _quantiles(resampled)
    exact = binomtest(correct, count).proportion_ci(LEVEL, method="exact")
    return float(exact.low), float(exact.high)


def _least_mean_recall(support: NDArray[np.int64]) -> float:
    """Return the lower end of the mean recall if all predictions are correct.

    Below it, that outcome has a probability under 2.5 %. Of all recalls p with sum(n * log(p)) = log(0.025), those
    with the least mean are p = min(1, c * n). For classes of one size it is the exact lower end of the accuracy.

    Args:
        support: Images per class, shape (C,); classes without images are ignored.
    """
    counts = support[support > 0].astype(np.float64)
    least = np.log((1 - LEVEL) / 2)

    def excess(log_c: float) -> float:
        return float((counts * np.minimum(0, log_c + np.log(counts))).sum() - least)

    # For classes of one size the lower bracket is the root itself, up to rounding; hence the margin of 1.
    log_c = brentq(excess, least / counts.sum() - np.log(counts.max()) - 1, -np.log(counts.min()))
    return float(np.minimum(1, np.exp(log_c) * counts).mean())


def _one_hot(classes: NDArray[np.int64], num_classes: int) -> csr_array:
    count = len(classes)
    return csr_array((np.ones(count), classes, np.arange(count + 1)), shape=(count, num_classes))


def _resamples(images: int) -> Iterator[NDArray[np.float64]]:
    """Yield chunks of bootstrap weights from a fixed seed, shape (resamples, images)."""
    draw = np.random.default_rng(_SEED)
    remaining = min(_RESAMPLES, max(_MIN_RESAMPLES, _DRAWS // images))
    chunk = max(1, _CHUNK // images)
    while remaining > 0:
        drawn = draw.integers(images, size=(min(remaining, chunk), images))
        yield np.stack([np.bincount(one, minlength=images) for one in drawn]).astype(np.float64)
        remaining -= chunk


def _macro(hits: Any, predicted: Any, true: Any, *, balanced: bool) -> dict[str, NDArray[np.float64]]:
    """Return macro averages of each resample, as scikit-learn's `average="macro"`.

    Args:
        hits: Correct predictions per class, shape (resamples, C).
        predicted: Predictions per class.
        true: Images per class.
        balanced: Also return the mean recall over the classes that have images.
    """
    counted = (predicted + true) > 0
    classes = np.maximum(1, counted.sum(axis=1))
    precision, recall = hits / np.maximum(1, predicted), hits / np.maximum(1, true)
    f1 = 2 * hits / np.maximum(1, predicted + true)
    means = {
        "precision_macro": precision.sum(axis=1) / classes,
        "recall_macro": recall.sum(axis=1) / classes,
        "f1_macro": f1.sum(axis=1) / classes,
    }
    if balanced:
        means["acc_balanced"] = recall.sum(axis=1) / np.maximum(1, (true > 0).sum(axis=1))
    return means


def _column(metrics: list[Mapping[str, NDArray[np.float64]]], key: str) -> NDArray[np.float64]:
    return np.concatenate([each[key] for each in metrics])


def _ends(metrics: list[Mapping[str, NDArray[np.float64]]]) -> dict[str, Interval]:
    columns = {key: _column(metrics, key) for key in metrics[0]}
    return {key: _quantiles(values) for key, values in columns.items() if np.ptp(values) > 0}


def _quantiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
