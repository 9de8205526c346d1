"""Images with what was said of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unfreeze.evaluation.pictures.style import BLUE, ORANGE, new_figure, shown, styled
from unfreeze.evaluation.predictions import TaskAnswers

COLUMNS = 6
_STEP_X, _STEP_Y = 1.06, 1.36
_SMALL_PX = 64


@dataclass(frozen=True, eq=False)
class Photo:
    """One image and what was said of it.

    Args:
        pixels: uint8, shape (H, W, 3).
        name: What a person calls the image.
        true: Name of its class.
        predicted: Name of the most probable class.
        probability: Of that class, in [0, 1].
        heat: What the answer rests on, in [0, 1], shape (h, w); None where nobody asked.
    """

    pixels: NDArray[np.uint8]
    name: str
    true: str
    predicted: str
    probability: float
    is_right: bool
    heat: NDArray[np.float32] | None = None


@styled
def plot_photos(photos: Sequence[Photo], *, with_heat: bool = False) -> Figure:
    """Return a grid of images, each with its answer, and its true class where that is another.

    Args:
        photos: One or more.
        with_heat: Show beside each image what its answer rests on.
    """
    wide = 2 if with_heat else 1
    columns = min(COLUMNS // wide, len(photos))
    rows = -(-len(photos) // columns)
    figure = new_figure(2.25 * rows, width_in=1.75 * columns * wide)
    axes = figure.subplots()  # one for all: each costs as much as a chart
    axes.set_axis_off()
    for number, photo in enumerate(photos):
        row, column = divmod(number, columns)
        left, top = _STEP_X * column * wide, _STEP_Y * row
        near = "nearest" if len(photo.pixels) < _SMALL_PX else "antialiased"
        axes.imshow(photo.pixels, interpolation=near, extent=_place(left, top))
        _write(axes, photo, left, top)
        if with_heat and photo.heat is not None:
            place = _place(left + _STEP_X, top)
            axes.imshow(photo.pixels, alpha=0.55, extent=place)
            axes.imshow(photo.heat, cmap="inferno", alpha=0.55, extent=place, interpolation="bilinear", vmin=0, vmax=1)
    axes.set(xlim=(-0.02, _STEP_X * columns * wide), ylim=(_STEP_Y * rows, -0.32), aspect="equal")
    return figure


def _place(left: float, top: float) -> tuple[float, float, float, float]:
    return left, left + 1, top + 1, top


def _write(axes: Axes, photo: Photo, left: float, top: float) -> None:
    mark = "\N{CHECK MARK}" if photo.is_right else "\N{MULTIPLICATION X}"
    title = f"{mark} {shown(photo.predicted, 18)} {100 * photo.probability:.0f} %"
    if not photo.is_right:
        title += f"\ntrue: {shown(photo.true, 18)}"
    color = BLUE if photo.is_right else ORANGE
    axes.text(left, top - 0.03, title, fontsize=8, color=color, ha="left", va="bottom")


def most_confident_mistakes(answers: TaskAnswers, most: int) -> NDArray[np.int64]:
    """Return the rows of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:most]


def some_of_each_class(truth: NDArray[np.int64], most: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Return rows that take turns between the classes, drawn by a seed."""
    rows = np.random.default_rng(seed).permutation(len(truth))
    turn = np.zeros(len(truth), dtype=np.int64)
    seen: dict[int, int] = {}
    for row in rows:
        label = int(truth[row])
        turn[row] = seen[label] = seen.get(label, -1) + 1
    return rows[np.argsort(turn[rows], kind="stable")][:most]
