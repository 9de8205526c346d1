"""Which score beats which."""

import math

import pytest

from unfreeze.training.monitors import is_better


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
