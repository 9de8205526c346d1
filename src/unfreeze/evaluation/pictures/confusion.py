"""The confusion matrix as a heat map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from unfreeze.evaluation.pictures.style import BLUE, INK, new_figure, shown, styled

MAX_NUMBERED = 14
MAX_NAMED = 60
MAX_CELLS = 150
_WHITES = LinearSegmentedColormap.from_list("whites", ["#ffffff", "#9ecae1", BLUE, "#08306b"])


@styled
def plot_confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Return the confusion matrix, coloured by the share of the true class.

    Up to 14 classes are shown with numbers of images and up to 60 with names; more are ordered so that confused classes
    are neighbours.

    Args:
        counts: Images per true class (rows) and predicted class (columns), shape (C, C).
        classes: Names of the classes, length C.
    """
    count = len(classes)
    order = np.arange(count) if count <= MAX_NAMED else order_by_confusion(counts)
    shares = row_shares(counts)[np.ix_(order, order)]
    if count > MAX_CELLS:
        shares = _largest_of_blocks(shares)
    norm = Normalize(0, 1) if count <= MAX_NAMED else PowerNorm(0.5, 0, 1)  # shares of many classes are small
    figure = new_figure(4.5) if count <= MAX_NUMBERED else new_figure(8.2, width_in=9)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=_WHITES, norm=norm, interpolation="nearest", aspect="equal")
    _label_axes(axes, classes, counts, order)
    if count <= MAX_NUMBERED:
        _write_counts(axes, counts, shares)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda value, _: f"{100 * value:.0f} %")
    bar.set_label("of the true class", color=INK)
    bar.outline.set_visible(False)
    return figure


def _label_axes(axes: Axes, classes: Sequence[str], counts: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    count = len(classes)
    axes.set(xlabel="predicted", ylabel="true")
    if count > MAX_NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        blocks = "; maximum of each block" if count > MAX_CELLS else ""
        axes.set(xlabel=f"predicted ({count:,} classes, similar ones together{blocks})")
        return
    size = float(np.clip(11 - count / 8, 4.5, 10))
    names = [shown(classes[index], 22 if count > MAX_NUMBERED else 16) for index in order]
    rotation = 90 if count > 4 and max(map(len, names)) > 3 else 0
    axes.set_xticks(range(count), names, rotation=rotation, fontsize=size)
    axes.set_yticks(range(count), _with_totals(names, counts.sum(axis=1)[order]), fontsize=size)


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts):
        ink = "#ffffff" if shares[row, column] > 0.45 else "#1f2329"  # not INK, which becomes the page's text colour
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=ink, fontsize=9)


def _with_totals(names: Sequence[str], totals: NDArray[np.int64]) -> list[str]:
    """Return the names of true classes with their numbers of images."""
    return [f"{name}  ({total:,})" for name, total in zip(names, totals.tolist(), strict=True)]


def _largest_of_blocks(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    edges = np.linspace(0, len(shares), MAX_CELLS, endpoint=False).astype(np.int64)
    blocks: NDArray[np.float64] = np.maximum.reduceat(np.maximum.reduceat(shares, edges, axis=0), edges, axis=1)
    return blocks


def row_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a confusion matrix normalised over each row; zeros for an empty row."""
    shares: NDArray[np.float64] = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return shares


def order_by_confusion(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes ordered by average linkage, so that confused classes are neighbours."""
    shares = row_shares(counts)
    similarity = (shares + shares.T) / 2
    np.fill_diagonal(similarity, 1.0)
    distance = 1 - np.clip(similarity, 0, 1)
    np.fill_diagonal(distance, 0.0)
    order: NDArray[np.int64] = leaves_list(linkage(squareform(distance, checks=False), method="average"))
    return order
