"""Learning rates over the epochs of a run, for plots."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unfreeze.training.plan.plan import Plan

_POINTS = 60
"""Per stage."""


class RateCurve(NamedTuple):
    """The learning rate of one layer group.

    Attributes:
        group: The group's name.
        epochs: Positions on the axis of epochs, which count from 1 and are shown at their end; float64, shape (P,).
        rates: NaN where the group is frozen; float64, shape (P,).
    """

    group: str
    epochs: NDArray[np.float64]
    rates: NDArray[np.float64]


def rate_curves(plan: Plan, epochs: Sequence[int]) -> list[RateCurve]:
    """Return the curve of each layer group that trained with a rate; a solved head has none.

    Args:
        plan: The plan of the run.
        epochs: How many epochs each stage lasted, of the stages that have begun.
    """
    curves = [_rate_curve(plan, epochs, group.name) for group in plan.groups]
    return [curve for curve in curves if np.isfinite(curve.rates).any()]


def _rate_curve(plan: Plan, epochs: Sequence[int], group: str) -> RateCurve:
    xs, ys, begun = [np.empty(0)], [np.empty(0)], 0
    for index, done in enumerate(epochs):
        progress = (np.arange(_POINTS) + 0.5) / _POINTS * done / plan.stages[index].horizon
        rates = np.array([plan.lr(group, index, float(share)) for share in progress])
        ends = begun + 0.5 + (np.arange(_POINTS) + 0.5) / _POINTS * done
        xs += [ends, ends[-1:]]
        ys += [np.where(rates > 0, rates, np.nan), np.full(1, np.nan)]
        begun += done
    return RateCurve(group, np.concatenate(xs), np.concatenate(ys))
