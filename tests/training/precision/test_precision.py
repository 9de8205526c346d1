"""Which precision and layout a probe's figures lead to, and how that is told and kept."""

from typing import Any

import pytest

from unfreeze.training.precision.precision import BASELINE, BFLOAT16, CANDIDATES, FLOAT32, Candidate, Verdict, choose

FP32, BF16, FP32_CONTIGUOUS, BF16_CONTIGUOUS = (candidate.name for candidate in CANDIDATES)
MEASURED = Verdict(speed={FP32: 1.0, BF16: 0.35}, batch_size=64, machine="a CPU", threads=2, torch="2.15.0")


@pytest.mark.parametrize(
    ("speed", "chosen"),
    [
        ({}, BASELINE),
        ({FP32: 1.0}, BASELINE),
        ({FP32: 1.0, BF16: 0.35}, BASELINE),
        ({FP32: 1.0, BF16: 1.09}, BASELINE),
        ({FP32: 1.0, BF16: 1.1}, Candidate(BFLOAT16, True)),
        ({FP32: 1.0, BF16: 2.9, FP32_CONTIGUOUS: 1.3, BF16_CONTIGUOUS: 2.0}, Candidate(BFLOAT16, True)),
        ({FP32: 1.0, BF16: 0.5, FP32_CONTIGUOUS: 1.3, BF16_CONTIGUOUS: 1.3}, Candidate(FLOAT32, False)),
        ({FP32: 1.0, BF16: 1.2, FP32_CONTIGUOUS: 1.15}, Candidate(FLOAT32, False)),
        ({FP32: 1.0, FP32_CONTIGUOUS: 1.05}, BASELINE),
        ({FP32: 1.0, BF16: 1.5, BF16_CONTIGUOUS: 1.7}, Candidate(BFLOAT16, False)),
    ],
)
def test_another_way_is_chosen_only_where_it_is_clearly_faster(speed: dict[str, float], chosen: Candidate) -> None:
    assert choose(speed) == chosen


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Verdict(), "32-true · channels_last"),
        (MEASURED, "32-true · channels_last (probe: bf16 0.35x of fp32)"),
        (Verdict(note="no probe on mps"), "32-true · channels_last (no probe on mps)"),
        (
            Verdict(channels_last=False, speed={FP32: 1.0, BF16: 0.5, FP32_CONTIGUOUS: 1.25}),
            "32-true · contiguous (probe: bf16 0.40x of fp32, contiguous 1.25x of channels_last)",
        ),
    ],
)
def test_it_says_what_and_why(verdict: Verdict, text: str) -> None:
    assert str(verdict) == text


def test_plain_values_give_the_verdict_back() -> None:
    assert Verdict.from_dict(MEASURED.to_dict()) == MEASURED


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {**MEASURED.to_dict(), "precision": 32},
        {**MEASURED.to_dict(), "precision": "64-true"},
        {**MEASURED.to_dict(), "speed": {FP32: "fast"}},
        {**MEASURED.to_dict(), "more": 1},
    ],
)
def test_other_values_are_no_verdict(values: Any) -> None:
    with pytest.raises(ValueError, match="no verdict"):
        Verdict.from_dict(values)
