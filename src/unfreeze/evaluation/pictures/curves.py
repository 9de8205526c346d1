"""Learning curves and rates over the epochs, with the stage changes marked."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from unfreeze.evaluation.pictures.style import BLUE, CYCLE, GREY, ORANGE, new_figure, shown, styled, tidy
from unfreeze.training.plan.plan import Plan

_LEGEND = {"train": "train", "val": "validation"}
_POINTS = 60
_LEAST_SHOWN = 1e-4
"""Of the largest rate; a cosine ends below any scale."""


@styled
def plot_learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Return accuracy and loss over the epochs, with a line and a name where each stage begins.

    Args:
        history: The rows of metrics.csv; at least one was validated.
    """
    figure = new_figure(5.4)
    accuracy, loss = figure.subplots(2, 1, sharex=True)
    history = [{**row, "epoch": epoch} for row, epoch in zip(history, _epochs_done(history), strict=True)]
    judged = [row for row in history if "val/acc" in row]
    for axes, metric, unit in (
        (accuracy, "acc", "accuracy"),
        (loss, "loss", "loss (nats per image)"),
    ):
        for split, rows, color, marker in (("train", history, GREY, "s"), ("val", judged, BLUE, "o")):
            points = [(row["epoch"], row[f"{split}/{metric}"]) for row in rows if f"{split}/{metric}" in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4, label=_LEGEND[split])
        axes.set(ylabel=unit)
        axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
        _mark_stages(axes, history, named=axes is accuracy)
    best = max(judged, key=lambda row: (row["val/acc"], -row.get("val/loss", 0.0)))
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


@styled
def plot_rates(plan: Plan, epochs: Sequence[int]) -> Figure:
    """Return the learning rate of each layer group over the epochs that each stage has lasted.

    Args:
        plan: What was planned.
        epochs: How many epochs each stage has lasted, of those that have begun; a solved head has no rate.
    """
    figure = new_figure(3.6)
    axes = figure.subplots()
    names = [group.name for group in plan.groups]
    styles = ("-", "--", ":")
    for number, name in enumerate(names):
        xs, ys = _rate_curve(plan, epochs, name)
        if not np.isfinite(ys).any():
            continue
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
        axes.set_ylim(bottom=max(axes.get_ylim()[0], axes.get_ylim()[1] * _LEAST_SHOWN))
        figure.legend(frameon=False, loc="outside lower center", ncols=min(4, len(axes.lines)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    stages = [{"epoch": number, "stage": stage} for number, stage in enumerate(_stage_of_epoch(plan, epochs), start=1)]
    _mark_stages(axes, stages)
    return figure


def _epochs_done(history: Sequence[dict[str, Any]]) -> list[float]:
    """Return how many epochs were done at each row; validations within an epoch stand between whole numbers."""
    ends = {row["epoch"]: row["step"] for row in history if "seconds" in row and "step" in row}
    done = []
    for row in history:
        begin, end = ends.get(row["epoch"] - 1, 0), ends.get(row["epoch"])
        within = "seconds" not in row and end is not None and end > begin
        done.append(row["epoch"] - 1 + (row["step"] - begin) / (end - begin) if within else row["epoch"])
    return done


def _stage_of_epoch(plan: Plan, epochs: Sequence[int]) -> list[str]:
    return [stage.name for stage, count in zip(plan.stages, epochs, strict=False) for _ in range(count)]


def _rate_curve(plan: Plan, epochs: Sequence[int], group: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where a group's rate stands: epochs count from 1 and are shown at their end, frozen parts left out."""
    xs, ys, begun = [np.empty(0)], [np.empty(0)], 0
    for index, done in enumerate(epochs):
        progress = (np.arange(_POINTS) + 0.5) / _POINTS * done / plan.stages[index].horizon
        rates = np.array([plan.lr(group, index, float(share)) for share in progress])
        ends = begun + 0.5 + (np.arange(_POINTS) + 0.5) / _POINTS * done
        xs += [ends, ends[-1:]]
        ys += [np.where(rates > 0, rates, np.nan), np.full(1, np.nan)]
        begun += done
    return np.concatenate(xs), np.concatenate(ys)


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
