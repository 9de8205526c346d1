"""Reliability: the accuracy of predictions by their confidence."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.calibration import BINS, reliability_bins
from unfreeze.evaluation.pictures.style import BLUE, GREY, ORANGE, new_figure, styled, tidy

Said = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""What was said of each answer, and whether it was right."""


@styled
def plot_reliability(before: Said, after: Said | None = None, *, temperature: float | None = None) -> Figure:
    """Return the reliability diagram (Guo et al. 2017, figure 1), with the number of answers below.

    Args:
        before: Confidence of each answer in [0, 1], shape (N,), and whether it is right.
        after: The same with the logits divided by the temperature; None to leave it out.
        temperature: What validation found, for the legend.
    """
    figure = new_figure(5.2)
    axes, counts = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfectly calibrated")
    scaled = f"divided by temperature {temperature:.2f}" if temperature is not None else "after temperature scaling"
    for said, color, marker, label in ((before, BLUE, "o", "as predicted"), (after, ORANGE, "s", scaled)):
        if said is None:
            continue
        bins = reliability_bins(*said)
        some = bins.count > 0
        area = 14 + 120 * bins.count[some] / max(1, bins.count.max())
        axes.scatter(
            bins.confidence[some], bins.accuracy[some], s=area, color=color, marker=marker, label=label, alpha=0.85
        )
        counts.stairs(bins.count, np.linspace(0, 1, BINS + 1), color=color, lw=1.4)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="accuracy")
    axes.legend(frameon=False, loc="upper left", markerscale=0.7)
    counts.set(xlabel="confidence", ylabel="predictions")
    for each in (axes, counts):
        tidy(each)
    return figure
