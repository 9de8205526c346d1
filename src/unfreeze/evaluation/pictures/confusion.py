"""What is taken for what."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from unfreeze.evaluation.pictures.style import BLUE, INK, new_figure, shown, styled

WITH_NUMBERS = 14
WITH_NAMES = 60
MOST_CELLS = 150
_WHITES = LinearSegmentedColormap.from_list("whites", ["#ffffff", "#9ecae1", BLUE, "#08306b"])


@styled
def plot_confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Return the confusion matrix: images in numbers, shares of their true class in colour.

    Up to 14 classes have their numbers, up to 60 their names; more stand in an order that puts next to each other what
    is confused.

    Args:
        counts: Images per true class (rows) and answer (columns), shape (C, C).
        classes: Names of the classes, length C.
    """
    count = len(classes)
    order = np.arange(count) if count <= WITH_NAMES else order_by_confusion(counts)
    shares = row_shares(counts)[np.ix_(order, order)]
    largest = count > MOST_CELLS
    if largest:
        shares = _largest_of_blocks(shares)
    norm = Normalize(0, 1) if count <= WITH_NAMES else PowerNorm(0.5, 0, 1)  # few of many are a small share
    figure = new_figure(4.5) if count <= WITH_NUMBERS else new_figure(8.2, width_in=9)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=_WHITES, norm=norm, interpolation="nearest", aspect="equal")
    axes.set(xlabel="predicted", ylabel="true")
    if count <= WITH_NAMES:
        size = float(np.clip(11 - count / 8, 4.5, 10))
        names = [shown(classes[index], 22 if count > WITH_NUMBERS else 16) for index in order]
        axes.set_xticks(
            range(count), names, rotation=90 if count > 4 and max(map(len, names)) > 3 else 0, fontsize=size
        )
        axes.set_yticks(range(count), _with_totals(names, counts.sum(axis=1)[order]), fontsize=size)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set(
            xlabel=f"predicted ({count:,} classes, like ones together{'; the most in each block' if largest else ''})"
        )
    if count <= WITH_NUMBERS:
        for row, column in np.argwhere(counts):
            ink = "#ffffff" if shares[row, column] > 0.45 else "#1f2329"  # on the cell, not on the page
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=ink, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda value, _: f"{100 * value:.0f} %")
    bar.set_label("of the true class", color=INK)
    bar.outline.set_visible(False)
    return figure


def _with_totals(names: Sequence[str], totals: NDArray[np.int64]) -> list[str]:
    """Return the names of true classes, each with how many images it has."""
    return [f"{name}  ({total:,})" for name, total in zip(names, totals.tolist(), strict=True)]


def _largest_of_blocks(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    edges = np.linspace(0, len(shares), MOST_CELLS, endpoint=False).astype(np.int64)
    blocks: NDArray[np.float64] = np.maximum.reduceat(np.maximum.reduceat(shares, edges, axis=0), edges, axis=1)
    return blocks


def row_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a confusion matrix as shares of each row; zeros where a row has nothing."""
    shares: NDArray[np.float64] = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return shares


def order_by_confusion(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes in an order that puts next to each other what is confused, by average linkage."""
    shares = row_shares(counts)
    alike = (shares + shares.T) / 2
    np.fill_diagonal(alike, 1.0)
    distance = 1 - np.clip(alike, 0, 1)
    np.fill_diagonal(distance, 0.0)
    order: NDArray[np.int64] = leaves_list(linkage(squareform(distance, checks=False), method="average"))
    return order
