"""Pictures of two to a thousand classes, with any names, and of incomplete runs."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from unfreeze.evaluation.confusions import most_frequent_confusions
from unfreeze.evaluation.pictures.confusion import (
    order_by_confusion,
    plot_confusion,
    row_shares,
)
from unfreeze.evaluation.pictures.curves import plot_learning_curves, plot_rates
from unfreeze.evaluation.pictures.feature_map import map_features, plot_feature_map
from unfreeze.evaluation.pictures.per_class import plot_per_class
from unfreeze.evaluation.pictures.photos import Photo, most_confident_mistakes, plot_photos, sample_across_classes
from unfreeze.evaluation.pictures.reliability import plot_reliability
from unfreeze.evaluation.pictures.style import save_png, shown, to_svg
from unfreeze.evaluation.predictions import TaskPredictions
from unfreeze.training.plan.curves import rate_curves
from unfreeze.training.plan.plan import Group, Rates, Stage
from unfreeze.training.plan.resolve import resolve_plan

AWKWARD = ("$x_1$ and $", '<b>bold</b> & "quoted"', "\N{DEER} \N{FIRE}", "שלום עולם", "n" * 200, "two\nlines", "", "__")


def texts(figure: Figure) -> list[str]:
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible()]
    return [text.get_text() for text in found if text.get_text()]


def counts(classes: int, *, right: float = 0.8, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    matrix = draw.integers(0, 3, size=(classes, classes))
    np.fill_diagonal(matrix, int(100 * right))
    return matrix.astype(np.int64)


def figures(classes: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        f"class {number}": {"precision": draw.random(), "recall": draw.random(), "f1": draw.random(), "support": 5}
        for number in range(classes)
    }


def draw_predictions(images: int = 60, classes: int = 3) -> TaskPredictions:
    draw = np.random.default_rng(0)
    truth, predicted = draw.integers(classes, size=images), draw.integers(classes, size=images)
    sure = draw.random(images)
    return TaskPredictions("label", tuple(f"class {n}" for n in range(classes)), truth, predicted, sure, sure / 2)


def history() -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "stage": "head" if epoch < 3 else "block",
            "train/acc": 0.5 + epoch / 20,
            "train/loss": 1 / epoch,
        }
        | ({} if epoch == 2 else {"val/acc": 0.5 + epoch / 25, "val/loss": 1.1 / epoch})
        for epoch in range(1, 6)
    ]


def everything(names: tuple[str, ...]) -> Iterator[Figure]:
    count = len(names)
    yield plot_confusion(counts(count), names)
    yield plot_per_class(dict(zip(names, figures(count).values(), strict=True)))
    points = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    yield plot_feature_map(points, np.arange(40) % count, np.arange(40) % 5 > 0, names)
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    yield plot_photos([Photo(pixels, name, name, names[0], 0.5, is_correct=name == names[0]) for name in names])


@pytest.mark.parametrize("classes", [2, 41, 61, 1000])
def test_any_number_of_classes_is_drawn(classes: int, tmp_path: Path) -> None:
    if classes < 48:
        for number, figure in enumerate(everything(tuple(f"class {n}" for n in range(classes)))):
            save_png(figure, tmp_path / f"{number}.png")
    figure = plot_confusion(counts(classes), [f"class {n}" for n in range(classes)])
    save_png(figure, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 500
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    named = [text for text in texts(figure) if text.startswith("class ")]
    assert len(named) == (2 * classes if classes <= 60 else 0)
    assert len(to_svg(figure, label="confusion")) < 600_000


@pytest.mark.filterwarnings("error")
def test_names_of_any_kind_are_drawn_as_they_are(tmp_path: Path) -> None:
    for number, figure in enumerate(everything(AWKWARD)):
        save_png(figure, tmp_path / f"{number}.png")
        svg = to_svg(figure, label='a "label" <of> & it')
        assert "<b>" not in svg
        assert "&lt;b&gt;" in svg or number == 2
        assert "\N{DEER}" in svg
        assert "$x_1$" in svg
        assert "n" * 100 not in svg


def test_svg_uses_the_text_colour_of_the_page() -> None:
    svg = to_svg(plot_reliability((np.linspace(0, 1, 50), np.arange(50) % 2 > 0)), label="reliability")
    assert svg.startswith("<svg ")
    assert "<?xml" not in svg
    assert "currentColor" in svg
    assert "#1f2328" not in svg
    assert 'role="img" aria-label="reliability"' in svg
    assert "<text" in svg


def test_rcparams_of_the_process_are_unchanged() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(counts(3), AWKWARD[:3])
    assert dict(mpl.rcParams) == before


def test_the_matrix_is_shares_of_its_rows() -> None:
    matrix = np.array([[8, 2], [0, 0]])
    assert row_shares(matrix).tolist() == [[0.8, 0.2], [0, 0]]
    (image,) = plot_confusion(matrix, ("a", "b")).axes[0].findobj(AxesImage)
    assert isinstance(image, AxesImage)
    assert image.get_array().tolist() == [[0.8, 0.2], [0, 0]]


def test_confused_classes_are_neighbours() -> None:
    matrix = 100 * np.eye(80, dtype=np.int64)
    for first, second in ((0, 70), (5, 40)):
        matrix[first, second] = matrix[second, first] = 90
    order = order_by_confusion(matrix).tolist()
    assert sorted(order) == list(range(80))
    for first, second in ((0, 70), (5, 40)):
        assert abs(order.index(first) - order.index(second)) == 1


def test_the_most_frequent_confusions_come_first() -> None:
    matrix = np.array([[9, 3, 0], [1, 9, 5], [0, 0, 9]])
    assert most_frequent_confusions(matrix) == [(1, 2, 5), (0, 1, 3), (1, 0, 1)]


def test_the_curves_show_where_stages_begin_and_what_was_best() -> None:
    figure = plot_learning_curves(history())
    labels = texts(figure)
    assert {" head", " block", "0.700", "epoch"} <= set(labels)
    assert {"train", "validation"} <= set(labels)
    assert len(figure.axes[0].lines) == 3  # two curves, one change
    assert list(figure.axes[0].lines[1].get_xdata()) == [1, 3, 4, 5]


def test_rates_are_those_of_the_plan_over_the_epochs_that_were_done() -> None:
    plan = resolve_plan(
        [Stage("one", 1, 2), Stage("two", 2, 4, warmup=0.25)],
        [Group("head", 10), Group("body", 20)],
        rates=Rates(head=1e-2, decay=0.1),
        schedule="constant",
    )
    axes = plot_rates(rate_curves(plan, [2, 1]), [("one", 2), ("two", 1)]).axes[0]
    head, body = axes.lines[:2]
    xs, ys = (np.asarray(values, dtype=float) for values in (head.get_xdata(), head.get_ydata()))
    assert np.nanmax(ys) == pytest.approx(1e-2)
    assert 0.5 <= xs.min() < xs.max() <= 3.5
    assert np.nanmin(np.asarray(body.get_xdata())[np.isfinite(np.asarray(body.get_ydata(), dtype=float))]) > 2.5
    assert np.nanmax(np.asarray(body.get_ydata(), dtype=float)) == pytest.approx(1e-3, rel=0.02)


def test_similar_features_are_neighbours_on_the_map() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = draw.normal(size=(90, 32)).astype(np.float32)
    features[np.arange(90), labels] += 30
    points = map_features(features)
    assert points.shape == (90, 2)
    nearest = np.array([np.argsort(((points - place) ** 2).sum(axis=1))[1] for place in points])
    assert (labels[nearest] == labels).mean() > 0.95
    assert (map_features(features) == points).all()


@pytest.mark.parametrize("images", [1, 2, 5, 13])
def test_a_map_of_few_images_is_a_map(images: int) -> None:
    points = map_features(np.random.default_rng(0).normal(size=(images, 7)).astype(np.float32))
    assert points.shape == (images, 2)
    assert np.isfinite(points).all()
    assert np.isfinite(map_features(np.ones((images, 7), dtype=np.float32))).all()


def test_the_most_confident_mistakes_come_first() -> None:
    own = draw_predictions()
    rows = most_confident_mistakes(own, 5)
    assert not own.correct[rows].any()
    assert own.confidence[rows].tolist() == sorted(own.confidence[~own.correct], reverse=True)[:5]


def test_sample_alternates_between_classes() -> None:
    truth = np.array([0] * 50 + [1] * 3 + [2])
    rows = sample_across_classes(truth, 6)
    assert sorted(truth[rows[:3]].tolist()) == [0, 1, 2]
    assert len(set(rows.tolist())) == 6
    assert (sample_across_classes(truth, 6) == rows).all()


@pytest.mark.parametrize(
    ("name", "expected"), [("cat", "cat"), ("", "''"), ("a\n b", "a b"), ("x" * 30, "x" * 17 + "…" + "x" * 6)]
)
def test_a_name_is_one_short_line(name: str, expected: str) -> None:
    assert shown(name) == expected


def test_saliency_is_shown_beside_its_image(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    photos = [Photo(pixels, "a", "cat", "dog", 0.9, is_correct=False, heat=np.eye(4, dtype=np.float32))] * 3
    figure = plot_photos(photos, with_heat=True)
    assert len(figure.findobj(AxesImage)) == 9  # the image, the image under its heat, and the heat
    assert any("true: cat" in text for text in texts(figure))
