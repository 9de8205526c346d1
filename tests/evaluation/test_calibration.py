"""Temperature, calibration error and reliability, on predictions of known calibration."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unfreeze.evaluation.calibration import (
    brier_score,
    calibration_error,
    fit_temperatures,
    label_calibration_error,
    reliability_bins,
    scale_logits,
)
from unfreeze.models.outputs import Outputs, TaskClasses

FOUR = Outputs.of(("a", "b", "c", "d"))


def calibrated(images: int = 20_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits, and labels drawn from their probabilities."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 4, generator=draw)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=draw).flatten()


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_temperature_equals_the_factor_of_the_logits(factor: float) -> None:
    logits, labels = calibrated()
    found = fit_temperatures(factor * logits, labels, FOUR)
    assert found is not None
    (temperature,) = found
    assert temperature == pytest.approx(factor, rel=0.05)
    before, after = (calibration_error(each, labels) for each in (factor * logits, factor * logits / temperature))
    assert after < 0.012
    assert before > after or factor == 1.0
    assert brier_score(factor * logits / temperature, labels) <= brier_score(factor * logits, labels) + 1e-4


def test_tasks_have_each_their_own_temperature() -> None:
    first, second = calibrated(seed=1), calibrated(seed=2)
    outputs = Outputs((TaskClasses("one", FOUR.names), TaskClasses("two", FOUR.names)))
    logits, labels = torch.cat([2 * first[0], 0.5 * second[0]], dim=1), torch.stack([first[1], second[1]], dim=1)
    temperatures = fit_temperatures(logits, labels, outputs)
    assert temperatures is not None
    assert temperatures == pytest.approx((2.0, 0.5), rel=0.05)
    for own, (plain, _) in zip(
        outputs.split(scale_logits(logits, outputs, temperatures)), (first, second), strict=True
    ):
        assert torch.allclose(own, plain, rtol=0.06)


def test_labels_are_scaled_together() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=draw)
    labels = (torch.rand(20_000, 3, generator=draw) < logits.sigmoid()).long()
    outputs = Outputs((TaskClasses("label", ("a", "b", "c")),), multilabel=True)
    assert fit_temperatures(3 * logits, labels, outputs) == pytest.approx((3.0,), rel=0.05)
    assert label_calibration_error(logits, labels) < 0.01 < label_calibration_error(3 * logits, labels)


def test_no_temperature_without_mistakes() -> None:
    labels = torch.arange(4)
    assert fit_temperatures(torch.eye(4), labels, FOUR) is None


def test_no_temperature_for_uninformative_predictions() -> None:
    logits, labels = calibrated()
    assert fit_temperatures(logits, labels.roll(1), FOUR) is None


def test_bins_hold_each_prediction_once() -> None:
    confidence = np.array([0.0, 0.3, 0.31, 0.999, 1.0])
    bins = reliability_bins(confidence, np.array([False, True, False, True, True]))
    assert bins.count.sum() == 5
    assert bins.count[-1] == 2
    assert bins.accuracy[4] == 0.5
    assert bins.confidence[4] == pytest.approx(0.305)
    assert np.isnan(bins.accuracy[7])
