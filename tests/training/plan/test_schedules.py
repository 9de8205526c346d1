"""Schedules by their values at progresses that one can work out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.training.plan.schedules import SCHEDULES

PROGRESS = st.floats(0, 1)


@pytest.mark.parametrize(
    ("name", "progress", "multiplier"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 1.0, 1.0),
        ("step", 0.0, 1.0),
        ("step", 0.33, 1.0),
        ("step", 0.34, 0.1),
        ("step", 0.66, 0.1),
        ("step", 0.67, 0.01),
        ("step", 1.0, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("one_cycle", 0.0, 1 / 25),
        ("one_cycle", 0.15, (1 + 1 / 25) / 2),
        ("one_cycle", 0.3, 1.0),
        ("one_cycle", 0.65, (1 + 1e-4) / 2),
        ("one_cycle", 1.0, 1e-4),
        ("cyclic", 0.0, 0.1),
        ("cyclic", 0.125, 0.55),
        ("cyclic", 0.25, 1.0),
        ("cyclic", 0.5, 0.1),
        ("cyclic", 0.75, 1.0),
        ("cyclic", 0.875, 0.55),
    ],
)
def test_multiplier_is_what_the_formula_gives(name: str, progress: float, multiplier: float) -> None:
    assert SCHEDULES[name](progress) == pytest.approx(multiplier, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@given(progress=PROGRESS)
def test_multiplier_lies_between_0_and_1(name: str, progress: float) -> None:
    assert 0 <= SCHEDULES[name](progress) <= 1 + 1e-12


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
@given(first=PROGRESS, second=PROGRESS)
def test_what_only_falls_never_rises(name: str, first: float, second: float) -> None:
    early, late = sorted((first, second))
    assert SCHEDULES[name](early) >= SCHEDULES[name](late)


@given(first=PROGRESS, second=PROGRESS)
def test_one_cycle_rises_once_and_falls_once(first: float, second: float) -> None:
    early, late = sorted((first, second))
    one_cycle = SCHEDULES["one_cycle"]
    if late <= 0.3:
        assert one_cycle(early) <= one_cycle(late) + 1e-12
    if early >= 0.3:
        assert one_cycle(early) >= one_cycle(late) - 1e-12


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_reaches_the_peak_rate(name: str) -> None:
    assert max(SCHEDULES[name](step / 1000) for step in range(1001)) == pytest.approx(1.0)
