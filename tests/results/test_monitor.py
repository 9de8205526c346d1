"""Comparison of validation scores."""

import math

import pytest

from unfreeze.results.monitor import Mode, Score, is_better


@pytest.mark.parametrize(
    ("score", "best", "mode", "better"),
    [
        (0.5, None, "max", True),
        (0.5, 0.4, "max", True),
        (0.5, 0.5, "max", False),
        (0.5, 0.4, "min", False),
        (0.3, 0.4, "min", True),
        (math.nan, None, "min", False),
        (math.nan, 0.4, "max", False),
        (math.inf, None, "max", False),
    ],
)
def test_is_better(score: float, best: float | None, mode: str, better: bool) -> None:
    assert is_better(score, best, mode) is better  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "best", "mode", "better"),
    [
        pytest.param(Score(0.9, 1.44), None, "max", True, id="the first"),
        pytest.param(Score(0.9, 0.93), Score(0.9, 1.44), "max", True, id="as accurate, at a lower loss"),
        pytest.param(Score(0.9, 1.44), Score(0.9, 0.93), "max", False, id="as accurate, at a higher loss"),
        pytest.param(Score(0.9, 0.93), Score(0.9, 0.93), "max", False, id="the same"),
        pytest.param(Score(0.8, 0.1), Score(0.9, 1.44), "max", False, id="the value comes first"),
        pytest.param(Score(0.9, math.nan), Score(0.9, 1.44), "max", False, id="a loss that is not finite"),
        pytest.param(Score(0.9, 1.44), Score(0.9), "max", True, id="the loss of the best is not known"),
        pytest.param(Score(0.3, 0.3), Score(0.3, 0.3), "min", False, id="the loss itself"),
    ],
)
def test_ties_are_broken_by_the_loss(score: Score, best: Score | None, mode: Mode, better: bool) -> None:
    assert score.beats(best, mode) is better
