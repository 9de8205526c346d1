"""The report page of a run: headline and warnings first, then pictures, mistakes, training and data."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import BaseLoader, Environment, StrictUndefined, Template
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from unfreeze.evaluation.headline import Headline
from unfreeze.evaluation.pictures.gallery import Picture
from unfreeze.evaluation.pictures.photos import Photo
from unfreeze.evaluation.pictures.style import WIDTH_IN, to_svg
from unfreeze.evaluation.record import RunRecord
from unfreeze.evaluation.report.sections import (
    class_tables,
    command_of,
    data_rows,
    headline_metrics,
    metrics_note,
    model_of,
    reproduction_rows,
    stage_advice,
    stage_rows,
    stages_note,
    status_lines,
)
from unfreeze.results.config_facts import data_name
from unfreeze.results.result import RunWarning
from unfreeze.system.files import replacing

LEVELS = {"bad": "Bad:", "warn": "Careful:", "note": "Note:"}

_SMALL_PX = 48
_DIRECTIONAL = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Bidirectional control characters, escaped because they can disguise one name as another."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong prediction as the page shows and filters it.

    Args:
        photo: The image with its prediction.
        true: Index of the true class.
        predicted: Index of the predicted class.
    """

    photo: Photo
    true: int
    predicted: int


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a page.

    Args:
        record: The run.
        headline: Grade and first sentence.
        warnings: Warnings, the worst first.
        pictures: The pictures that were drawn.
        earlier_pictures: Files of earlier pictures, whose images are no longer available.
        mistakes: Wrong predictions, the most confident first.
        mistake_count: Number of wrong predictions, shown or not.
    """

    record: RunRecord
    headline: Headline
    warnings: Sequence[RunWarning]
    pictures: Sequence[Picture]
    earlier_pictures: Sequence[Path] = ()
    mistakes: Sequence[Mistake] = ()
    mistake_count: int = 0


def write_page(content: Content, file: Path) -> None:
    """Write a self-contained page, atomically."""
    page = build_page(content)
    with replacing(file) as building:
        # File names may hold bytes that are not valid text.
        building.write_bytes(page.encode("utf-8", "backslashreplace"))


def build_page(content: Content) -> str:
    """Return the page as HTML; names are escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=BaseLoader(), trim_blocks=True)
    folder = files("unfreeze.evaluation.report")
    page, card = (
        environment.from_string(folder.joinpath(name).read_text(encoding="utf-8"))
        for name in ("report.html.jinja", "photo.html.jinja")
    )

    def show(photo: Photo, data: Mapping[str, Any] | None = None) -> Markup:
        return _render_photo(card, photo, data)

    rendered: str = page.render(card=show, **_summary(content), **_mistakes(content), **_sections(content.record))
    return rendered.translate(_DIRECTIONAL)


def _render_photo(card: Template, photo: Photo, data: Mapping[str, Any] | None) -> Markup:
    small = max(photo.pixels.shape[:2]) <= _SMALL_PX
    heat = None if photo.heat is None else _data_uri(_heated(photo), photograph=True)
    confidence = f"{100 * photo.probability:.0f}"
    src = _data_uri(photo.pixels, photograph=not small)
    return Markup(  # noqa: S704
        card.render(photo=photo, data=data, src=src, small=small, heat=heat, confidence=confidence)
    )


def _summary(content: Content) -> dict[str, Any]:
    """Return the template's variables of headline, warnings and pictures."""
    record, result = content.record, content.record.result
    return {
        "title": f"{model_of(record)} on {data_name(record.config.get('data') or {})}",
        "headline": content.headline,
        "status": list(status_lines(record)),
        "metrics": list(headline_metrics(result)),
        "metrics_note": metrics_note(result),
        "tested": bool(result.get("test")),
        "warnings": content.warnings,
        "levels": LEVELS,
        "pictures": [*_shown_pictures(_not_listed(content)), *_shown_files(content.earlier_pictures)],
    }


def _mistakes(content: Content) -> dict[str, Any]:
    """Return the template's variables of the list of mistakes and its filters."""
    return {
        "mistakes": [
            {
                "photo": each.photo,
                "data": {
                    "true": each.true,
                    "predicted": each.predicted,
                    "confidence": f"{100 * each.photo.probability:.1f}",
                },
            }
            for each in content.mistakes
        ],
        "mistakes_note": _mistakes_note(content),
        "mistaken_true": _options((each.true, each.photo.true) for each in content.mistakes),
        "mistaken_predicted": _options((each.predicted, each.photo.predicted) for each in content.mistakes),
    }


def _sections(record: RunRecord) -> dict[str, Any]:
    """Return the template's variables of classes, training, data and reproduction."""
    result = record.result
    return {
        "class_tables": list(class_tables(record)),
        "monitor": result.get("monitor", "val/acc"),
        "evaluated": bool(result.get("evaluated")),
        "stages": list(stage_rows(record)),
        "stages_note": stages_note(record),
        "stage_advice": stage_advice(record),
        "data": list(data_rows(record)),
        "command": command_of(result),
        "reproduction": list(reproduction_rows(record)),
    }


def _not_listed(content: Content) -> list[Picture]:
    """Return the pictures, charts first, without the grid of mistakes if the page lists them."""
    listed = [picture for picture in content.pictures if not (picture.name == "mistakes" and content.mistakes)]
    return sorted(listed, key=_is_wide)


def _is_wide(picture: Picture) -> bool:
    """Return whether a picture spans the whole width of a page."""
    return bool(picture.photos) or picture.figure.get_figwidth() > WIDTH_IN


def _shown_pictures(pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    for picture in pictures:
        svg = None if picture.photos else Markup(to_svg(picture.figure, label=picture.title))  # noqa: S704
        yield {
            "name": picture.name,
            "title": picture.title,
            "caption": picture.caption,
            "photos": picture.photos,
            "svg": svg,
            "png": None,
            "wide": _is_wide(picture),
        }


def _shown_files(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        caption = "Drawn when the run ended: its images could not be read for this page."
        title = path.stem.replace("_", " ").capitalize()
        yield {
            "name": path.stem,
            "title": title,
            "caption": caption,
            "photos": (),
            "svg": None,
            "png": uri,
            "wide": True,
        }


def _mistakes_note(content: Content) -> str:
    shown, count = len(content.mistakes), content.mistake_count
    return (
        "All wrong predictions." if shown == count else f"The {shown:,} most confident of {count:,} wrong predictions."
    )


def _options(pairs: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"number": number, "text": text} for number, text in sorted(set(pairs))]


def _data_uri(pixels: NDArray[np.uint8], *, photograph: bool) -> str:
    out = BytesIO()
    if photograph:
        Image.fromarray(pixels).save(out, "JPEG", quality=82)
    else:
        Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(out.getvalue()).decode()}"


def _heated(photo: Photo) -> NDArray[np.uint8]:
    """Return an image overlaid with its saliency map."""
    assert photo.heat is not None
    side = max(_SMALL_PX, *photo.pixels.shape[:2])
    image = Image.fromarray(photo.pixels).resize((side, side), Image.Resampling.BILINEAR)
    heat = Image.fromarray(np.uint8(255 * np.clip(photo.heat, 0, 1))).resize((side, side), Image.Resampling.BILINEAR)
    colors = mpl.colormaps["inferno"](np.asarray(heat))[..., :3] * 255
    mixed: NDArray[np.uint8] = (0.45 * np.asarray(image) + 0.55 * colors).round().astype(np.uint8)
    return mixed
