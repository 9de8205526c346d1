"""Bars of F1, precision and recall per class."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unfreeze.evaluation.pictures.style import BLUE, GREY, ORANGE, new_figure, shown, styled, tidy

MAX_NAMED = 40
_WEAKEST, _STRONGEST = 20, 10


@styled
def plot_per_class(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return F1 as bars with precision and recall as marks, the weakest class first.

    Above 40 classes, the 20 weakest and the 10 strongest are shown by name, below a histogram of F1 over all classes.

    Args:
        metrics: precision, recall, f1 and support of each class or label by name.
    """
    present = {name: own for name, own in metrics.items() if own["support"]}
    ordered = sorted(present, key=lambda name: present[name]["f1"])
    if len(ordered) <= MAX_NAMED:
        figure = new_figure(max(2.2, 1.0 + 0.27 * len(ordered)))
        _bars(figure.subplots(), ordered, present)
        return figure
    figure = new_figure(9.5)
    spread, bars = figure.subplots(2, 1, height_ratios=(1, 3.6))
    spread.hist([own["f1"] for own in present.values()], bins=np.linspace(0, 1, 41).tolist(), color=BLUE)
    spread.set(xlabel="F1", ylabel=f"classes (of {len(ordered):,})", xlim=(0, 1))
    tidy(spread)
    _bars(bars, ordered[:_WEAKEST] + ordered[-_STRONGEST:], present)
    bars.axhline(_WEAKEST - 0.5, color=GREY, lw=1, ls="--")
    bars.set_title(f"the {_WEAKEST} weakest and the {_STRONGEST} strongest", pad=24)
    return figure


def _bars(axes: Axes, names: list[str], metrics: Mapping[str, Mapping[str, Any]]) -> None:
    rows = np.arange(len(names))
    axes.barh(rows, [metrics[name]["f1"] for name in names], color=BLUE, height=0.62, alpha=0.75, label="F1")
    recall, precision = ([metrics[name][key] for name in names] for key in ("recall", "precision"))
    axes.plot(recall, rows, ls="", marker="|", ms=11, mew=2.2, color=ORANGE, label="recall")
    axes.plot(precision, rows, ls="", marker="d", ms=5, color=GREY, label="precision")
    labels = [f"{shown(name)}  ({metrics[name]['support']:,})" for name in names]
    axes.set_yticks(rows, labels, fontsize=9)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set(xlim=(0, 1.02), xlabel="share (class name and its images)")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    tidy(axes, grid="x")
