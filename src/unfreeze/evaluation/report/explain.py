"""Write the pictures and the report of a run."""

from collections.abc import Sequence
from pathlib import Path

from unfreeze.evaluation.explainer import ImageExplainer
from unfreeze.evaluation.headline import build_headline
from unfreeze.evaluation.pictures.curves import RateCurve
from unfreeze.evaluation.pictures.gallery import Picture, build_photos, draw_pictures
from unfreeze.evaluation.pictures.photos import most_confident_mistakes
from unfreeze.evaluation.pictures.style import save_png
from unfreeze.evaluation.predictions import predictions_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.evaluation.report.page import Content, Mistake, write_page
from unfreeze.results.result import RunWarning

OF_IMAGES = ("mistakes", "predictions", "saliency", "feature_map")
"""Pictures that need the images of the run, and its model."""

_MAX_MISTAKES = 300


def explain(record: RunRecord, explainer: ImageExplainer | None, rates: Sequence[RateCurve] = ()) -> list[Picture]:
    """Draw `figures/`, and write `report.html` beside a run's result.

    Args:
        record: The run.
        explainer: Its model and images; None if they are not available: earlier pictures of images are then reused.
        rates: The learning rates of its layer groups.

    Returns:
        The pictures.
    """
    pictures = list(draw_pictures(record, explainer, rates=rates))
    figures = record.directory.figures
    for picture in pictures:
        save_png(picture.figure, figures / f"{picture.name}.png")
    warnings = [RunWarning(**each) for each in record.result.get("warnings") or []]
    mistakes, count = _mistakes(record, explainer)
    content = Content(
        record,
        build_headline(record.result, warnings),
        warnings,
        pictures,
        earlier_pictures=[] if explainer is not None else _earlier_pictures(figures),
        mistakes=mistakes,
        mistake_count=count,
    )
    write_page(content, record.directory.report_file)
    return pictures


def _mistakes(record: RunRecord, explainer: ImageExplainer | None) -> tuple[list[Mistake], int]:
    """Return the most confident mistakes, and the number of all."""
    stored = record.predictions
    if explainer is None or stored is None or not stored.splits or stored.outputs.multilabel:
        return [], 0
    predictions = stored.splits.get("test") or next(iter(stored.splits.values()))
    task = predictions_by_task(predictions, stored.outputs)[0]
    rows = most_confident_mistakes(task, _MAX_MISTAKES)
    photos = build_photos(task, predictions, explainer, rows)
    mistakes = [
        Mistake(photo, int(task.truth[row]), int(task.predicted[row])) for row, photo in zip(rows, photos, strict=True)
    ]
    return mistakes, int((~task.correct).sum())


def _earlier_pictures(folder: Path) -> list[Path]:
    return [file for name in OF_IMAGES for file in sorted(folder.glob(f"{name}*.png"))]
