"""Grids of images with their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.pictures.style import BLUE, ORANGE, new_figure, shown, styled
from unfreeze.evaluation.predictions import TaskPredictions

COLUMNS = 6
_STEP_X, _STEP_Y = 1.06, 1.36
_SMALL_PX = 64


@dataclass(frozen=True, eq=False)
class Photo:
    """One image with its prediction.

    Args:
        pixels: uint8, shape (H, W, 3).
        name: File name or other name of the image.
        true: Name of its class.
        predicted: Name of the most probable class.
        probability: Of that class, in [0, 1].
        is_correct: True if the predicted class is the true one.
        heat: Saliency map of the prediction, in [0, 1], shape (h, w); None if not requested.
    """

    pixels: NDArray[np.uint8]
    name: str
    true: str
    predicted: str
    probability: float
    is_correct: bool
    heat: NDArray[np.float32] | None = None


@styled
def plot_photos(photos: Sequence[Photo], *, with_heat: bool = False) -> Figure:
    """Return a grid of images, each with its predicted class, and its true class if they differ.

    Args:
        photos: One or more.
        with_heat: Show the saliency map beside each image.
    """
    wide = 2 if with_heat else 1
    columns = min(COLUMNS // wide, len(photos))
    rows = -(-len(photos) // columns)
    figure = new_figure(2.25 * rows, width_in=1.75 * columns * wide)
    axes = figure.subplots()  # one for all images: each axes costs as much as a chart
    axes.set_axis_off()
    for number, photo in enumerate(photos):
        row, column = divmod(number, columns)
        left, top = _STEP_X * column * wide, _STEP_Y * row
        interpolation = "nearest" if len(photo.pixels) < _SMALL_PX else "antialiased"
        axes.imshow(photo.pixels, interpolation=interpolation, extent=_extent(left, top))
        _write_title(axes, photo, left, top)
        if with_heat and photo.heat is not None:
            extent = _extent(left + _STEP_X, top)
            axes.imshow(photo.pixels, alpha=0.55, extent=extent)
            axes.imshow(photo.heat, cmap="inferno", alpha=0.55, extent=extent, interpolation="bilinear", vmin=0, vmax=1)
    axes.set(xlim=(-0.02, _STEP_X * columns * wide), ylim=(_STEP_Y * rows, -0.32), aspect="equal")
    return figure


def _extent(left: float, top: float) -> tuple[float, float, float, float]:
    return left, left + 1, top + 1, top


def _write_title(axes: Axes, photo: Photo, left: float, top: float) -> None:
    mark = "\N{CHECK MARK}" if photo.is_correct else "\N{MULTIPLICATION X}"
    title = f"{mark} {shown(photo.predicted, 18)} {100 * photo.probability:.0f} %"
    if not photo.is_correct:
        title += f"\ntrue: {shown(photo.true, 18)}"
    color = BLUE if photo.is_correct else ORANGE
    axes.text(left, top - 0.03, title, fontsize=8, color=color, ha="left", va="bottom")


def most_confident_mistakes(task: TaskPredictions, limit: int) -> NDArray[np.int64]:
    """Return the rows of the wrong predictions, the most confident first."""
    wrong = np.flatnonzero(~task.correct)
    return wrong[np.argsort(-task.confidence[wrong], kind="stable")][:limit]


def sample_across_classes(truth: NDArray[np.int64], limit: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return randomly drawn rows, alternating between the classes."""
    rows = np.random.default_rng(seed).permutation(len(truth))
    rank = np.zeros(len(truth), dtype=np.int64)
    last: dict[int, int] = {}
    for row in rows:
        label = int(truth[row])
        rank[row] = last[label] = last.get(label, -1) + 1
    return rows[np.argsort(rank[rows], kind="stable")][:limit]
