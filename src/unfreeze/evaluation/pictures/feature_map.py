"""Images by what the head sees of them, in two dimensions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from unfreeze.evaluation.pictures.style import CYCLE, GREY, INK, ORANGE, new_figure, shown, styled

MOST_IMAGES = 600
_COMPONENTS = 50
_FEWEST_FOR_TSNE = 12
_MARKERS = ("o", "s", "^", "D")
_COLORED = len(CYCLE) * len(_MARKERS)


def map_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where images lie in two dimensions, by t-SNE of their principal components (van der Maaten 2008).

    Args:
        features: shape (N, D), N >= 1.

    Returns:
        Shape (N, 2), the same whenever it is asked for the same.
    """
    components = min(_COMPONENTS, *features.shape)
    if not np.ptp(features, axis=0).any():
        return np.zeros((len(features), 2), dtype=np.float32)
    reduced: NDArray[np.float32] = PCA(components, random_state=0).fit_transform(features)
    if len(features) < _FEWEST_FOR_TSNE:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(30.0, (len(features) - 1) / 4)
    found = TSNE(2, perplexity=perplexity, init="pca" if components > 1 else "random", random_state=0, max_iter=600)
    with threadpool_limits(1):  # so few images are done sooner by one thread than by two that wait for each other
        mapped: NDArray[np.float32] = found.fit_transform(reduced)
    return mapped


@styled
def plot_feature_map(
    places: NDArray[np.float32], truth: NDArray[np.int64], right: NDArray[np.bool_], classes: Sequence[str]
) -> Figure:
    """Return the map of some images; a cross marks each that is answered wrongly.

    Up to 24 classes have a colour and a mark each; of more, only right and wrong are told apart.

    Args:
        places: As `map_features` gives them, shape (N, 2).
        truth: Labels, shape (N,).
        right: Whether each answer is right, shape (N,).
        classes: Names of the classes.
    """
    figure = new_figure(5.6)
    axes = figure.subplots()
    occurring = np.unique(truth)
    if len(occurring) <= _COLORED:
        for number, label in enumerate(occurring):
            own = truth == label
            axes.scatter(
                places[own, 0],
                places[own, 1],
                s=16,
                color=CYCLE[number % len(CYCLE)],
                marker=_MARKERS[number // len(CYCLE) % len(_MARKERS)],
                alpha=0.75,
                lw=0,
                label=shown(classes[label]),
                rasterized=True,
            )
    else:
        axes.scatter(places[:, 0], places[:, 1], s=12, color=GREY, alpha=0.6, lw=0, label="correct", rasterized=True)
    if not right.all():
        color = INK if len(occurring) <= _COLORED else ORANGE
        axes.scatter(places[~right, 0], places[~right, 1], s=34, color=color, marker="x", lw=1.1, label="misclassified")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set(xlabel=f"t-SNE of the features of {len(places):,} test images")
    axes.spines[:].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3, markerscale=1.4)
    return figure
