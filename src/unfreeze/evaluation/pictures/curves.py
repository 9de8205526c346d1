"""Learning curves and rates over the epochs, with the stage changes marked."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from unfreeze.evaluation.pictures.style import BLUE, CYCLE, GREY, ORANGE, new_figure, shown, styled, tidy

RateCurve = tuple[str, NDArray[np.float64], NDArray[np.float64]]
"""A layer group's name, epochs and learning rates, NaN while it is frozen; both of shape (P,)."""

_LEGEND = {"train": "train", "val": "validation"}
_MIN_SHOWN = 1e-4
"""Lower limit of the axis as a share of the largest rate; a cosine schedule ends at zero."""


@styled
def plot_learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Return accuracy and loss over the epochs, with a line and a name at the start of each stage.

    Args:
        history: The rows of metrics.csv, at least one with validation metrics.
    """
    figure = new_figure(5.4)
    accuracy, loss = figure.subplots(2, 1, sharex=True)
    history = [{**row, "epoch": epoch} for row, epoch in zip(history, _completed_epochs(history), strict=True)]
    _plot_metric(accuracy, history, "acc", "accuracy")
    _plot_metric(loss, history, "loss", "loss (nats per image)")
    validated = [row for row in history if "val/acc" in row]
    best = max(validated, key=lambda row: (row["val/acc"], -row.get("val/loss", 0.0)))
    accuracy.annotate(
        f"{best['val/acc']:.3f}",
        (best["epoch"], best["val/acc"]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        color=BLUE,
    )
    loss.set_xlabel("epoch")
    accuracy.margins(y=0.12)
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def _plot_metric(axes: Axes, history: Sequence[dict[str, Any]], metric: str, label: str) -> None:
    validated = [row for row in history if "val/acc" in row]
    for split, rows, color, marker in (("train", history, GREY, "s"), ("val", validated, BLUE, "o")):
        points = [(row["epoch"], row[f"{split}/{metric}"]) for row in rows if f"{split}/{metric}" in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4, label=_LEGEND[split])
    axes.set(ylabel=label)
    axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    _mark_stages(axes, history, named=metric == "acc")


@styled
def plot_rates(curves: Sequence[RateCurve], stages: Sequence[tuple[str, int]]) -> Figure:
    """Return the learning rate of each layer group over the epochs.

    Args:
        curves: A curve for each layer group that trained.
        stages: Name and number of epochs of each stage that has begun.
    """
    figure = new_figure(3.6)
    axes = figure.subplots()
    styles = ("-", "--", ":")
    for number, (name, xs, ys) in enumerate(curves):
        axes.plot(
            xs,
            ys,
            color=CYCLE[number % len(CYCLE)],
            ls=styles[number // len(CYCLE) % len(styles)],
            label=shown(name),
            lw=1.6,
        )
    axes.set(xlabel="epoch", ylabel="learning rate")
    if axes.lines:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=max(axes.get_ylim()[0], axes.get_ylim()[1] * _MIN_SHOWN))
        figure.legend(frameon=False, loc="outside lower center", ncols=min(4, len(axes.lines)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    names = [name for name, epochs in stages for _ in range(epochs)]
    _mark_stages(axes, [{"epoch": number, "stage": name} for number, name in enumerate(names, start=1)])
    return figure


def _completed_epochs(history: Sequence[dict[str, Any]]) -> list[float]:
    """Return the completed epochs at each row, fractional for validations within an epoch."""
    ends = {row["epoch"]: row["step"] for row in history if "seconds" in row and "step" in row}
    done = []
    for row in history:
        begin, end = ends.get(row["epoch"] - 1, 0), ends.get(row["epoch"])
        within = "seconds" not in row and end is not None and end > begin
        done.append(row["epoch"] - 1 + (row["step"] - begin) / (end - begin) if within else row["epoch"])
    return done


def _mark_stages(axes: Axes, history: Sequence[dict[str, Any]], *, named: bool = True) -> None:
    begins = [
        (math.ceil(row["epoch"]), row["stage"], previous is None)
        for previous, row in zip([None, *history], history, strict=False)
        if previous is None or previous["stage"] != row["stage"]
    ]
    ends = [*(epoch for epoch, *_ in begins[1:]), math.ceil(history[-1]["epoch"]) + 1 if history else 1]
    width = max(1, ends[-1] - 1)
    for (epoch, name, is_first), end in zip(begins, ends[: len(begins)], strict=True):
        if not is_first:
            axes.axvline(epoch - 0.5, color=ORANGE, lw=1, ls="--")
        if named:
            axes.annotate(
                f" {shown(name, max(3, int(60 * (end - epoch) / width)))}",
                (epoch - (0 if is_first else 0.5), 1.01),
                xycoords=("data", "axes fraction"),
                color=ORANGE,
                fontsize=9,
            )
