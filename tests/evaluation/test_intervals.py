"""Bootstrap intervals against SciPy's bootstrap, and their coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from unfreeze.evaluation.intervals import class_intervals, label_intervals, share_interval


def draw_predictions(
    images: int, seed: int, *, accuracy: float = 0.8, classes: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(classes, size=images)
    return truth, np.where(draw.random(images) < accuracy, truth, draw.integers(classes, size=images))


def test_intervals_agree_with_scipy_bootstrap() -> None:
    truth, predicted = draw_predictions(300, seed=0)
    intervals = class_intervals(truth, predicted, num_classes=4)
    figures = {
        "acc": lambda t, s: (t == s).mean(),
        "acc_balanced": balanced_accuracy_score,
        "precision_macro": lambda t, s: precision_score(t, s, average="macro", zero_division=0),
        "recall_macro": lambda t, s: recall_score(t, s, average="macro", zero_division=0),
        "f1_macro": lambda t, s: f1_score(t, s, average="macro", zero_division=0),
    }
    assert intervals.keys() == figures.keys()
    for key, figure in figures.items():
        found = bootstrap(
            (truth, predicted), figure, paired=True, vectorized=False, n_resamples=600, method="percentile", rng=1
        ).confidence_interval
        assert intervals[key] == pytest.approx((found.low, found.high), abs=0.012), key


def test_coverage_of_the_true_accuracy() -> None:
    expected = 0.7 + 0.3 / 4
    held = 0
    for seed in range(200):
        low, high = class_intervals(*draw_predictions(150, seed, accuracy=0.7), num_classes=4)["acc"]
        held += low <= expected <= high
    assert 180 <= held <= 199


def test_perfect_predictions_have_an_exact_interval() -> None:
    truth = np.arange(30) % 3
    assert class_intervals(truth, truth, num_classes=3)["acc"] == pytest.approx((0.05 ** (1 / 30) ** 1, 1.0), abs=0.03)
    assert share_interval(0, 10)[0] == 0.0
    exact = binomtest(30, 30).proportion_ci(0.95, method="exact")
    assert class_intervals(truth, truth, num_classes=3)["acc"] == (exact.low, exact.high)


def test_intervals_are_deterministic() -> None:
    truth, predicted = draw_predictions(100, seed=3)
    assert class_intervals(truth, predicted, num_classes=4) == class_intervals(truth, predicted, num_classes=4)


def test_more_images_narrow_the_interval() -> None:
    few, many = (
        class_intervals(*draw_predictions(images, seed=1), num_classes=4)["f1_macro"] for images in (100, 10_000)
    )
    assert many[1] - many[0] < (few[1] - few[0]) / 5


def test_labels_have_intervals_of_their_own() -> None:
    draw = np.random.default_rng(0)
    truth = (draw.random((400, 3)) < 0.4).astype(np.int64)
    given = np.where(draw.random((400, 3)) < 0.9, truth, 1 - truth)
    intervals = label_intervals(truth, given)
    for key, value in {
        "acc": (truth == given).mean(),
        "acc_exact": (truth == given).all(axis=1).mean(),
        "f1_macro": f1_score(truth, given, average="macro"),
    }.items():
        low, high = intervals[key]
        assert low < value < high < low + 0.12


def test_figures_that_no_resample_moves_have_an_exact_interval_or_none() -> None:
    truth = np.arange(24) % 3
    right = class_intervals(truth, truth, num_classes=3)
    assert right.keys() == {"acc", "acc_balanced", "recall_macro"}
    assert right["acc_balanced"] == right["recall_macro"] == pytest.approx(right["acc"])
    assert right["acc"] == pytest.approx((0.858, 1), abs=5e-4)
    wrong = class_intervals(truth, (truth + 1) % 3, num_classes=3)
    assert wrong.keys() == right.keys()
    assert wrong["acc_balanced"] == pytest.approx(wrong["acc"])
    assert wrong["acc"] == pytest.approx((0, 0.142), abs=5e-4)
    constant = class_intervals(np.repeat([0, 1], 500), np.zeros(1000, dtype=np.int64), num_classes=2)
    assert all(low < high for low, high in constant.values())
    assert "acc_balanced" not in constant


def test_a_small_class_leaves_more_room_for_the_balanced_accuracy() -> None:
    truth = np.repeat([0, 1], [20, 4])
    intervals = class_intervals(truth, truth, num_classes=2)
    assert intervals["acc_balanced"][0] < intervals["acc"][0]
    recalls = np.random.default_rng(0).uniform(size=(200_000, 2))
    as_likely = recalls[(recalls ** [20, 4]).prod(axis=1) >= 0.025]
    assert intervals["acc_balanced"][0] == pytest.approx(as_likely.mean(axis=1).min(), abs=0.01)


def test_labels_that_are_all_right_have_an_exact_interval_of_that_alone() -> None:
    truth = (np.arange(60).reshape(20, 3) % 2).astype(np.int64)
    assert label_intervals(truth, truth) == {"acc_exact": share_interval(20, 20)}
