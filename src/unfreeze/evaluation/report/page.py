"""The page of a run: its answer first, then how it was reached."""

import base64
import shlex
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

from unfreeze.evaluation.cautions import Caution
from unfreeze.evaluation.pictures.confusion import commonest_confusions
from unfreeze.evaluation.pictures.gallery import Picture, count_confusions
from unfreeze.evaluation.pictures.photos import Photo
from unfreeze.evaluation.pictures.style import to_svg
from unfreeze.evaluation.predictions import answers_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.evaluation.verdict import Verdict
from unfreeze.files import replacing
from unfreeze.training.progress import format_seconds

LEVELS = {"bad": "Bad:", "warn": "Careful:", "note": "Note:"}

_HEADLINE = {
    "acc": "accuracy",
    "acc_exact": "all labels right",
    "acc_balanced": "balanced accuracy",
    "f1_macro": "F1, macro",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "acc_top5": "among the first five",
    "ap_macro": "average precision, macro",
    "auroc_macro": "ROC AUC, macro",
    "mcc": "Matthews correlation",
    "ece": "calibration error",
    "brier": "Brier score",
}
_COLUMNS = ("precision", "recall", "f1", "ap", "auroc")
_COLUMN_NAMES = {"f1": "F1", "ap": "average precision", "auroc": "ROC AUC"}
_SMALL_PX = 48


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
        cautions: What could make that untrue, the worst first.
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
    return page.render(
        card=show,
        title=f"{_model_of(record)} on {_data_of(record)}",
        verdict=content.verdict,
        status=list(_status(record)),
        headline=list(_headline(result)),
        headline_note=_headline_note(result),
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
        class_tables=list(_class_tables(record)),
        monitor=result.get("monitor", "val/acc"),
        evaluated=bool(result.get("evaluated")),
        stages=list(_stages(record)),
        stages_note=_stages_note(record),
        data=list(_data(record)),
        command=_command(result),
        reproduction=list(_reproduction(record)),
    )


def _not_listed(content: Content) -> list[Picture]:
    """Return the pictures but for the one of which the list of mistakes shows more."""
    return [picture for picture in content.pictures if not (picture.name == "mistakes" and content.mistakes)]


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
        }


def _shown_files(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        caption = "As it was drawn when the run ended: its images could not be read for this page."
        title = path.stem.replace("_", " ").capitalize()
        yield {"name": path.stem, "title": title, "caption": caption, "photos": (), "svg": None, "png": uri}


def _model_of(record: RunRecord) -> str:
    return str((record.config.get("model") or {}).get("name", "a model"))


def _data_of(record: RunRecord) -> str:
    data = record.config.get("data") or {}
    return Path(str(data["root"])).name if data.get("root") else str(data.get("name", "images"))


def _status(record: RunRecord) -> Iterator[str]:
    result = record.result
    status, reason = result["status"], result.get("reason")
    if status != "completed":
        yield f"This run {'was stopped' if status == 'stopped' else 'failed'}: {reason or 'no reason was left'}."
    for resumed in result.get("resumed") or []:
        yield f"It was interrupted and resumed in epoch {resumed['epoch']}, after step {resumed['step']:,}."
    begun = len(record.stages)
    for number, (stage, planned) in enumerate(
        zip(record.stages, record.plan.stages if record.plan else (), strict=False)
    ):
        has_ended = number + 1 < begun or status == "completed"
        if has_ended and planned.patience is not None and stage["epochs"] < planned.epochs:
            yield (
                f"Stage {stage['name']} was stopped early, after {stage['epochs']} of {planned.epochs} epochs: "
                f"validation had not improved for {planned.patience}."
            )
    if result.get("evaluated"):
        yield f"An evaluation on {result['evaluated']}, apart from the run's own test."


def _headline(result: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    test = result.get("test")
    figures = test or result.get("val") or {}
    intervals = figures.get("intervals") or {}
    for key, name in _HEADLINE.items():
        value = figures.get(key)
        if value is None:
            continue
        ends = intervals.get(key)
        detail = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        if f"{key}_scaled" in figures:
            detail = f"{figures[f'{key}_scaled']:.3f} after temperature scaling"
        yield {"name": name, "value": f"{value:.3f}", "detail": detail}


def _headline_note(result: Mapping[str, Any]) -> str:
    test = result.get("test")
    if test is None:
        return "Of the validation images, which chose the model; there was no test."
    best, temperatures = result.get("best"), result.get("temperatures")
    parts = [f"On {test['n']:,} test images, looked at once"]
    if best:
        parts[0] += f", by the weights of epoch {best['epoch']} ({best['stage']})"
    if test.get("intervals"):
        parts.append("ranges are 95 % bootstrap intervals")
    if temperatures:
        told = ", ".join(f"{value:.2f}" for value in temperatures)
        parts.append(f"the temperature, {told}, was fitted on validation")
    return "; ".join(parts) + "."


def _mistakes_note(content: Content) -> str:
    shown, every = len(content.mistakes), content.all_mistakes
    return "All wrong answers." if shown == every else f"The {shown:,} most confident of {every:,} wrong answers."


def _choices(pairs: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"number": number, "text": text} for number, text in sorted(set(pairs))]


def _class_tables(record: RunRecord) -> Iterator[dict[str, Any]]:
    test = record.result.get("test")
    if test is None:
        return
    kept = record.predictions
    tasks = answers_by_task(kept.splits["test"], kept.outputs) if kept is not None and "test" in kept.splits else []
    for number, (task, figures) in enumerate(test.get("tasks", {"": test}).items()):
        by_label = "per_label" in figures
        rows = figures.get("per_class") or figures.get("per_label") or {}
        columns = [key for key in _COLUMNS if any(key in own for own in rows.values())]
        confusions = commonest_confusions(count_confusions(tasks[number]), 8) if tasks else []
        yield {
            "title": f"Each {'label' if by_label else 'class'}{f', {task}' if task else ''}",
            "confusions": [
                {"true": tasks[number].classes[true], "said": tasks[number].classes[said], "count": count}
                for true, said, count in confusions
            ],
            "columns": [
                "label" if by_label else "class",
                *(_COLUMN_NAMES.get(key, key) for key in columns),
                "images",
                "predicted",
            ],
            "rows": [
                {
                    "name": name,
                    "cells": [
                        *(_figure(own.get(key)) for key in columns),
                        f"{own['support']:,}",
                        f"{own.get('predicted', 0):,}",
                    ],
                }
                for name, own in sorted(rows.items(), key=lambda pair: pair[1]["f1"])
            ],
        }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _stages(record: RunRecord) -> Iterator[dict[str, str]]:
    monitor = str(record.result.get("monitor", "val/acc"))
    before: float | None = None
    for stage in record.stages:
        score = stage.get(monitor)
        gain = "-" if score is None or before is None else f"{score - before:+.3f}"
        yield {
            "name": stage["name"],
            "groups": ", ".join(stage.get("groups", [])),
            "parameters": f"{stage['trainable']:,}",
            "epochs": str(stage["epochs"]),
            "time": format_seconds(stage["seconds"]),
            "memory": f"{stage['memory_mb']:,} MB" if stage.get("memory_mb") else "-",
            "score": _figure(score),
            "gain": gain,
        }
        before = score if score is not None else before


def _stages_note(record: RunRecord) -> str:
    total = f" of {record.stages[0]['total']:,} parameters" if record.stages else ""
    seconds = record.result.get("seconds")
    cached = [stage["name"] for stage in record.stages if stage.get("cache")]
    parts = [
        f"Training took {format_seconds(seconds)}" if seconds else "",
        f"parameters that train{total}" if total else "",
    ]
    parts.append(f"{', '.join(cached)} trained on cached features" if cached else "")
    parts.append("gain is over the stage before, in validation")
    return "; ".join(part for part in parts if part) + "."


def _data(record: RunRecord) -> Iterator[tuple[str, str]]:
    about, config = record.result.get("data") or {}, record.config.get("data") or {}
    place = config.get("root") or config.get("csv") or config.get("name")
    yield "images", str(place)
    for split in ("train", "val", "test"):
        if split in about:
            own = (record.splits.get("splits") or {}).get(split) or {}
            origin = ", cut from train" if own.get("cut_from_train") else ""
            proof = f"; hash {own['hash']}" if own.get("hash") else ""
            yield split, f"{about[split]:,} images{origin}{proof}"
    if about.get("unreadable"):
        yield "left out", f"{about['unreadable']:,} images that can't be read"
    also = about.get("also_in_train") or {}
    yield "also in train", f"{also.get('val', 0):,} of val, {also.get('test', 0):,} of test, byte for byte"
    if about.get("fingerprint"):
        yield "fingerprint", str(about["fingerprint"])


def _command(result: Mapping[str, Any]) -> str:
    typed = [shlex.quote(override) for override in result.get("overrides") or []]
    begin = ["unfreeze evaluate", shlex.quote(result["run"])] if result.get("evaluated") else ["python train.py"]
    return " ".join([*begin, *typed])


def _reproduction(record: RunRecord) -> Iterator[tuple[str, str]]:
    result = record.result
    yield "seed", str(result.get("seed"))
    compute = result.get("compute") or {}
    if compute:
        layout = "channels last" if compute.get("channels_last") else "channels first"
        yield "computed in", f"{compute.get('precision')}, {layout}"
    versions = result.get("versions") or {}
    if versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "all settings", "config.yaml, and plan.txt for what was planned, beside this page"


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
