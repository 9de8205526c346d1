"""Learning curves with the stage changes marked."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfreeze.training.recorder import RunRecorder

# Okabe and Ito 2008: told apart with any colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#767676"
_LEGEND = {"train": "train", "val": "validation"}


class LearningCurves(L.Callback):
    """Draws `figures/learning_curves.png` when training ends, and shows it in TensorBoard; not for a sweep's runs."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, on the first rank."""
        recorder = next((callback for callback in trainer.callbacks if isinstance(callback, RunRecorder)), None)  # type: ignore[attr-defined]
        if not trainer.is_global_zero or recorder is None or recorder.in_sweep:
            return
        figure = draw_curves(recorder.folder, recorder.history)
        if figure is None:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("learning_curves", figure, trainer.global_step, close=False)


def draw_run(run_dir: Path) -> None:
    """Draw `figures/learning_curves.png` of a run that has ended, from its metrics.csv."""
    with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    draw_curves(run_dir, [{key: _number(value) for key, value in row.items()} for row in rows])


def draw_curves(run_dir: Path, history: Sequence[dict[str, Any]]) -> Figure | None:
    """Draw `figures/learning_curves.png` from the rows of the epochs; None where none was validated."""
    if not any("val/acc" in row for row in history):
        return None
    figure = plot_learning_curves(history)
    save_figure(figure, run_dir / "figures" / "learning_curves.png")
    return figure


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def plot_learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Return accuracy and loss over the epochs, with a line and a name where each stage begins.

    Args:
        history: A row per epoch, as `RunRecorder` keeps them; at least one was validated.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    judged = [row for row in history if "val/acc" in row]
    for axes, metric, unit in (
        (accuracy, "acc", "accuracy (share of images)"),
        (loss, "loss", "loss (nats per image)"),
    ):
        for split, rows, color in (("train", history, _GREY), ("val", judged, _BLUE)):
            epochs, values = zip(*((row["epoch"], row[f"{split}/{metric}"]) for row in rows), strict=True)
            axes.plot(epochs, values, color=color, marker="o", ms=4, label=_LEGEND[split])
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        _mark_stages(axes, history)
    best = max(judged, key=lambda row: row["val/acc"])
    accuracy.annotate(
        f"{best['val/acc']:.3f}",
        (best["epoch"], best["val/acc"]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        color=_BLUE,
    )
    accuracy.margins(y=0.12)
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _mark_stages(axes: Axes, history: Sequence[dict[str, Any]]) -> None:
    for previous, row in zip([None, *history], history, strict=False):
        if previous is not None and previous["stage"] == row["stage"]:
            continue
        if previous is not None:
            axes.axvline(row["epoch"] - 0.5, color=_ORANGE, lw=1, ls="--")
        axes.annotate(
            f" {row['stage']}",
            (row["epoch"] - (0.5 if previous is not None else 0), 1.01),
            xycoords=("data", "axes fraction"),
            color=_ORANGE,
            fontsize=9,
        )
