"""A two-dimensional t-SNE map of the features of images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from unfreeze.evaluation.pictures.style import CYCLE, GREY, INK, ORANGE, new_figure, shown, styled

MAX_IMAGES = 600
_COMPONENTS = 50
_MIN_FOR_TSNE = 12
_MARKERS = ("o", "s", "^", "D")
_COLORED = len(CYCLE) * len(_MARKERS)


def map_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return two-dimensional coordinates by t-SNE of the principal components (van der Maaten 2008).

    Args:
        features: Features, shape (N, D), N >= 1.

    Returns:
        Coordinates, shape (N, 2); deterministic.
    """
    components = min(_COMPONENTS, *features.shape)
    if not np.ptp(features, axis=0).any():
        return np.zeros((len(features), 2), dtype=np.float32)
    reduced: NDArray[np.float32] = PCA(components, random_state=0).fit_transform(features)
    if len(features) < _MIN_FOR_TSNE:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(30.0, (len(features) - 1) / 4)
    tsne = TSNE(2, perplexity=perplexity, init="pca" if components > 1 else "random", random_state=0, max_iter=600)
    with threadpool_limits(1):  # faster with one thread for so few images
        mapped: NDArray[np.float32] = tsne.fit_transform(reduced)
    return mapped


@styled
def plot_feature_map(
    points: NDArray[np.float32], truth: NDArray[np.int64], correct: NDArray[np.bool_], classes: Sequence[str]
) -> Figure:
    """Return a scatter plot of the features of some images, with crosses on misclassified ones.

    Up to 24 classes have their own colour and marker; more are not distinguished.

    Args:
        points: Coordinates from `map_features`, shape (N, 2).
        truth: Labels, shape (N,).
        correct: Mask of the correct predictions, shape (N,).
        classes: Names of the classes.
    """
    figure = new_figure(5.6)
    axes = figure.subplots()
    is_colored = len(np.unique(truth)) <= _COLORED
    if is_colored:
        _scatter_classes(axes, points, truth, classes)
    else:
        axes.scatter(points[:, 0], points[:, 1], s=12, color=GREY, alpha=0.6, lw=0, label="correct", rasterized=True)
    if not correct.all():
        wrong = points[~correct]
        color = INK if is_colored else ORANGE
        axes.scatter(wrong[:, 0], wrong[:, 1], s=34, color=color, marker="x", lw=1.1, label="misclassified")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set(xlabel=f"t-SNE of the features of {len(points):,} test images")
    axes.spines[:].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, markerscale=1.4)
    return figure


def _scatter_classes(axes: Axes, points: NDArray[np.float32], truth: NDArray[np.int64], classes: Sequence[str]) -> None:
    for number, label in enumerate(np.unique(truth)):
        own = truth == label
        axes.scatter(
            points[own, 0],
            points[own, 1],
            s=16,
            color=CYCLE[number % len(CYCLE)],
            marker=_MARKERS[number // len(CYCLE) % len(_MARKERS)],
            alpha=0.75,
            lw=0,
            label=shown(classes[label]),
            rasterized=True,
        )
