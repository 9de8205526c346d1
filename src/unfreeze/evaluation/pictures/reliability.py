"""Reliability: the accuracy of predictions by their confidence."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.calibration import BINS, reliability_bins
from unfreeze.evaluation.pictures.style import BLUE, GREY, ORANGE, new_figure, styled, tidy

ScoredPredictions = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Confidence of each prediction, in [0, 1], and the mask of the correct ones; both of shape (N,)."""


@styled
def plot_reliability(
    before: ScoredPredictions, after: ScoredPredictions | None = None, *, temperature: float | None = None
) -> Figure:
    """Return the reliability diagram (Guo et al. 2017, figure 1), with the number of predictions below.

    Args:
        before: The predictions without temperature scaling.
        after: The predictions with temperature scaling; None to leave them out.
        temperature: Temperature fitted on validation, for the legend.
    """
    figure = new_figure(5.2)
    axes, counts = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfectly calibrated")
    scaled = f"divided by temperature {temperature:.2f}" if temperature is not None else "after temperature scaling"
    for scored, color, marker, label in ((before, BLUE, "o", "as predicted"), (after, ORANGE, "s", scaled)):
        if scored is None:
            continue
        bins = reliability_bins(*scored)
        filled = bins.count > 0
        area = 14 + 120 * bins.count[filled] / max(1, bins.count.max())
        axes.scatter(
            bins.confidence[filled], bins.accuracy[filled], s=area, color=color, marker=marker, label=label, alpha=0.85
        )
        counts.stairs(bins.count, np.linspace(0, 1, BINS + 1), color=color, lw=1.4)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="accuracy")
    axes.legend(frameon=False, loc="upper left", markerscale=0.7)
    counts.set(xlabel="confidence", ylabel="predictions")
    for each in (axes, counts):
        tidy(each)
    return figure
