"""The page of a run: its answer first, then how it was reached."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from unfreeze.evaluation.pictures.gallery import Picture
from unfreeze.evaluation.pictures.photos import Photo
from unfreeze.evaluation.pictures.style import WIDTH_IN, to_svg
from unfreeze.evaluation.record import RunRecord, data_name
from unfreeze.evaluation.report.sections import (
    class_tables,
    command_of,
    data_rows,
    headline_figures,
    headline_note,
    model_of,
    reproduction_rows,
    stage_advice,
    stage_rows,
    stages_note,
    status_lines,
)
from unfreeze.evaluation.verdict import Verdict
from unfreeze.evaluation.warnings import Caution
from unfreeze.system.files import replacing

LEVELS = {"bad": "Bad:", "warn": "Careful:", "note": "Note:"}

_SMALL_PX = 48
_TURNING = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that turn the direction of the text after them, by which a name can pass for another."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong answer as the page shows and filters it.

    Args:
        photo: The image and what was said of it.
        true: Number of its class.
        said: Number of the class that was answered.
    """

    photo: Photo
    true: int
    said: int


@dataclass(frozen=True, eq=False)
class Content:
    """All that a page shows.

    Args:
        record: The run.
        verdict: Its first sentence.
        cautions: Warnings, the worst first.
        pictures: As they were drawn.
        kept_pictures: Files of earlier pictures, of images that can't be had now.
        mistakes: Wrong answers, the most confident first.
        all_mistakes: How many there are of them.
    """

    record: RunRecord
    verdict: Verdict
    cautions: Sequence[Caution]
    pictures: Sequence[Picture]
    kept_pictures: Sequence[Path] = ()
    mistakes: Sequence[Mistake] = ()
    all_mistakes: int = 0


def write_page(content: Content, file: Path) -> None:
    """Write a page that asks nothing of any network, whole or not at all."""
    page = build_page(content)
    with replacing(file) as building:
        # A file system's name may hold bytes that are no text.
        building.write_bytes(page.encode("utf-8", "backslashreplace"))


def build_page(content: Content) -> str:
    """Return the page as HTML; every name in it is text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=BaseLoader(), trim_blocks=True)
    here = files("unfreeze.evaluation.report")
    page, card = (
        environment.from_string(here.joinpath(name).read_text(encoding="utf-8"))
        for name in ("report.html.jinja", "photo.html.jinja")
    )

    def show(photo: Photo, data: Mapping[str, Any] | None = None) -> Markup:
        small = max(photo.pixels.shape[:2]) <= _SMALL_PX
        heat = None if photo.heat is None else _data_uri(_heated(photo), photograph=True)
        sure = f"{100 * photo.probability:.0f}"
        src = _data_uri(photo.pixels, photograph=not small)
        return Markup(card.render(photo=photo, data=data, src=src, small=small, heat=heat, sure=sure))  # noqa: S704

    record, result = content.record, content.record.result
    rendered: str = page.render(
        card=show,
        title=f"{model_of(record)} on {data_name(record.config.get('data') or {})}",
        verdict=content.verdict,
        status=list(status_lines(record)),
        headline=list(headline_figures(result)),
        headline_note=headline_note(result),
        tested=bool(result.get("test")),
        cautions=content.cautions,
        levels=LEVELS,
        pictures=[*_shown_pictures(_not_listed(content)), *_shown_files(content.kept_pictures)],
        mistakes=[
            {
                "photo": each.photo,
                "data": {"true": each.true, "said": each.said, "sure": f"{100 * each.photo.probability:.1f}"},
            }
            for each in content.mistakes
        ],
        mistakes_note=_mistakes_note(content),
        mistaken_true=_choices((each.true, each.photo.true) for each in content.mistakes),
        mistaken_said=_choices((each.said, each.photo.predicted) for each in content.mistakes),
        class_tables=list(class_tables(record)),
        monitor=result.get("monitor", "val/acc"),
        evaluated=bool(result.get("evaluated")),
        stages=list(stage_rows(record)),
        stages_note=stages_note(record),
        stage_advice=stage_advice(record),
        data=list(data_rows(record)),
        command=command_of(result),
        reproduction=list(reproduction_rows(record)),
    )
    return rendered.translate(_TURNING)


def _not_listed(content: Content) -> list[Picture]:
    """Return the pictures but for the one of which the list of mistakes shows more, charts first."""
    listed = [picture for picture in content.pictures if not (picture.name == "mistakes" and content.mistakes)]
    return sorted(listed, key=_is_wide)


def _is_wide(picture: Picture) -> bool:
    """Return whether a picture takes the whole width of a page."""
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
        caption = "As it was drawn when the run ended: its images could not be read for this page."
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
    shown, every = len(content.mistakes), content.all_mistakes
    return "All wrong answers." if shown == every else f"The {shown:,} most confident of {every:,} wrong answers."


def _choices(pairs: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"number": number, "text": text} for number, text in sorted(set(pairs))]


def _data_uri(pixels: NDArray[np.uint8], *, photograph: bool) -> str:
    out = BytesIO()
    if photograph:
        Image.fromarray(pixels).save(out, "JPEG", quality=82)
    else:
        Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(out.getvalue()).decode()}"


def _heated(photo: Photo) -> NDArray[np.uint8]:
    """Return an image under the colours of its heat."""
    assert photo.heat is not None
    side = max(_SMALL_PX, *photo.pixels.shape[:2])
    image = Image.fromarray(photo.pixels).resize((side, side), Image.Resampling.BILINEAR)
    heat = Image.fromarray(np.uint8(255 * np.clip(photo.heat, 0, 1))).resize((side, side), Image.Resampling.BILINEAR)
    colors = mpl.colormaps["inferno"](np.asarray(heat))[..., :3] * 255
    mixed: NDArray[np.uint8] = (0.45 * np.asarray(image) + 0.55 * colors).round().astype(np.uint8)
    return mixed
