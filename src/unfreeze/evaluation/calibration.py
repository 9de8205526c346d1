"""Calibration of probabilities: expected calibration error, Brier score, temperature scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from unfreeze.models.outputs import Outputs

BINS = 15
_TEMPERATURES = (0.05, 20.0)
_EDGE = 0.01


def fit_temperatures(logits: Tensor, labels: Tensor, outputs: Outputs) -> tuple[float, ...] | None:
    """Return the temperature of each task that minimises the validation loss (Guo et al. 2017, section 4.2).

    None if a task has no such temperature: for error-free predictions it goes to zero, for uninformative ones to
    infinity.

    Args:
        logits: Of validation, shape (N, C), N >= 1.
        labels: int64, shape (N,), or (N, tasks), or (N, labels) of 0 and 1.
        outputs: Tasks and classes of the logits.
    """
    if outputs.multilabel:
        fitted = [_fit(logits.double(), labels.double(), multilabel=True)]
    else:
        columns = zip(outputs.split(logits), labels.view(len(labels), -1).T, strict=True)
        fitted = [_fit(own.double(), truth, multilabel=False) for own, truth in columns]
    known = [temperature for temperature in fitted if temperature is not None]
    return tuple(known) if len(known) == len(fitted) else None


def _fit(logits: Tensor, labels: Tensor, *, multilabel: bool) -> float | None:
    predicted = (logits > 0).double() if multilabel else logits.argmax(dim=1)
    if torch.equal(predicted, labels):
        return None

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if multilabel:
            return float(F.binary_cross_entropy_with_logits(scaled, labels))
        return float(F.cross_entropy(scaled, labels))

    low, high = np.log(_TEMPERATURES)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    return float(np.exp(best)) if low + _EDGE < best < high - _EDGE else None


def scale_logits(logits: Tensor, outputs: Outputs, temperatures: Sequence[float]) -> Tensor:
    """Return logits divided by the temperatures of their tasks, shape (N, C)."""
    parts = outputs.split(logits)
    return torch.cat([part / temperature for part, temperature in zip(parts, temperatures, strict=True)], dim=1)


def calibration_metrics(
    logits: Tensor, labels: Tensor, *, multilabel: bool, temperature: float | None = None
) -> dict[str, float]:
    """Return loss in nats, ece and brier; with a temperature, loss_scaled, ece_scaled and brier_scaled too.

    Args:
        logits: float32, shape (N, C).
        labels: int64, shape (N,), or (N, labels) of 0 and 1.
        multilabel: True for several labels per image.
        temperature: Temperature fitted on validation, > 0; None for no scaled metrics.
    """
    metrics: dict[str, float] = {}
    for suffix, divisor in (("", 1.0), ("_scaled", temperature)):
        if divisor is None:
            continue
        own = logits / divisor
        if multilabel:
            loss = F.binary_cross_entropy_with_logits(own.double(), labels.double())
            error, brier = label_calibration_error(own, labels), label_brier_score(own, labels)
        else:
            loss = F.cross_entropy(own.double(), labels)
            error, brier = calibration_error(own, labels), brier_score(own, labels)
        metrics |= {f"loss{suffix}": float(loss), f"ece{suffix}": error, f"brier{suffix}": brier}
    return metrics


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error of the predicted classes, 15 bins (Guo et al. 2017, eq. 3), in [0, 1]."""
    probabilities = logits.double().softmax(dim=1)
    return float(multiclass_calibration_error(probabilities, labels, num_classes=logits.shape[1], n_bins=BINS))


def label_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error over the probabilities of all labels, 15 bins, in [0, 1]."""
    return float(binary_calibration_error(logits.double().sigmoid().flatten(), labels.flatten(), n_bins=BINS))


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Return the Brier score (Brier 1950): in [0, 1] for two classes, in [0, 2] for more, as in scikit-learn."""
    probabilities = logits.double().softmax(dim=1).numpy()
    if logits.shape[1] == 1:
        return 0.0
    return float(brier_score_loss(labels.numpy(), probabilities, labels=np.arange(logits.shape[1])))


def label_brier_score(logits: Tensor, labels: Tensor) -> float:
    """Return the mean Brier score of the labels, each in [0, 1]."""
    probabilities, truth = logits.double().sigmoid().numpy(), labels.numpy()
    columns = zip(truth.T, probabilities.T, strict=True)
    return float(np.mean([brier_score_loss(own, score, labels=[0, 1]) for own, score in columns]))


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Accuracy of predictions binned by confidence.

    Args:
        confidence: Mean confidence per bin, shape (B,), NaN for an empty bin.
        accuracy: Share of correct predictions per bin, shape (B,), NaN for an empty bin.
        count: Predictions per bin, shape (B,).
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]


def reliability_bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> ReliabilityBins:
    """Return predictions in 15 bins of equal width by their confidence.

    Args:
        confidence: Probability of each predicted class, in [0, 1], shape (N,).
        correct: Mask of the correct predictions, shape (N,).
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return ReliabilityBins(
            confidence=np.bincount(bins, confidence, minlength=BINS) / count,
            accuracy=np.bincount(bins, correct, minlength=BINS) / count,
            count=count,
        )
