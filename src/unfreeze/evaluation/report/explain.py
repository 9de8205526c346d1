"""From a run's directory to its pictures and its page."""

from pathlib import Path

from unfreeze.evaluation.looking import Looker
from unfreeze.evaluation.pictures.gallery import Picture, draw_pictures, photos_of
from unfreeze.evaluation.pictures.photos import most_confident_mistakes
from unfreeze.evaluation.pictures.style import save_png
from unfreeze.evaluation.predictions import answers_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.evaluation.report.page import Content, Mistake, write_page
from unfreeze.evaluation.verdict import reach_verdict
from unfreeze.evaluation.warnings import Caution

REPORT_FILE = "report.html"
OF_IMAGES = ("mistakes", "predictions", "saliency", "feature_map")
"""Pictures that need the images of the run, and its model."""

_MOST_MISTAKES = 300


def explain(record: RunRecord, looker: Looker | None) -> list[Picture]:
    """Draw `figures/`, and write `report.html` beside a run's result.

    Args:
        record: The run.
        looker: Its model and images; None where they can't be had, and then earlier pictures of them stay.

    Returns:
        The pictures.
    """
    folder = record.folder
    pictures = list(draw_pictures(record, looker))
    for picture in pictures:
        save_png(picture.figure, folder / "figures" / f"{picture.name}.png")
    cautions = [Caution(**each) for each in record.result.get("warnings") or []]
    mistakes, every = _mistakes(record, looker)
    kept = [] if looker is not None else _kept(folder / "figures")
    content = Content(
        record, reach_verdict(record.result, cautions), cautions, pictures, kept, mistakes, all_mistakes=every
    )
    write_page(content, folder / REPORT_FILE)
    return pictures


def _mistakes(record: RunRecord, looker: Looker | None) -> tuple[list[Mistake], int]:
    kept = record.predictions
    if looker is None or kept is None or not kept.splits or kept.outputs.multilabel:
        return [], 0
    predictions = kept.splits.get("test") or next(iter(kept.splits.values()))
    task = answers_by_task(predictions, kept.outputs)[0]
    rows = most_confident_mistakes(task, _MOST_MISTAKES)
    photos = photos_of(task, predictions, looker, rows)
    mistakes = [
        Mistake(photo, int(task.truth[row]), int(task.answers[row])) for row, photo in zip(rows, photos, strict=True)
    ]
    return mistakes, int((~task.right).sum())


def _kept(folder: Path) -> list[Path]:
    return [file for name in OF_IMAGES for file in sorted(folder.glob(f"{name}*.png"))]
