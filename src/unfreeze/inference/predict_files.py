"""`unfreeze predict`: files in, rows out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from unfreeze.data.sources.images import printable
from unfreeze.data.sources.walking import image_suffixes
from unfreeze.errors import UnfreezeError
from unfreeze.inference.device import claim_device
from unfreeze.inference.feeder import Feeder
from unfreeze.inference.inputs import file_parts
from unfreeze.inference.paths import Unmatched, find_paths
from unfreeze.inference.prediction import predict
from unfreeze.inference.writers import FORMATS, write_predictions
from unfreeze.models.find_model import find_classifier
from unfreeze.system.files import replacing


def format_of(asked: str | None, out: Path | None) -> str:
    """Return the format that was asked for, else the one that the name of the file says, else a table.

    Raises:
        UnfreezeError: If there is none such, or no folder for the file.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise UnfreezeError(f"--out: there is no folder {str(out.parent)!r}; make it, or type another file")
    form = asked or (out.suffix.lower().removeprefix(".") if out is not None else "")
    if asked is not None and asked not in FORMATS:
        raise UnfreezeError(f"--format: got {asked!r}, want one of {', '.join(FORMATS)}")
    return form if form in FORMATS else "table"


def open_feeder(
    model: str,
    *,
    weights: Path | None,
    device: str,
    batch_size: int,
    workers: int | None,
    trust_repo: bool = False,
) -> Feeder:
    """Return what brings images to the classifier that a person names; see `find_classifier` and `Feeder`."""
    where = claim_device(device)
    classifier = find_classifier(model, weights=weights, trust_repo=trust_repo)
    return Feeder(classifier, device=where, batch_size=batch_size, workers=workers)


def predict_files(
    given: Sequence[str], feeder: Feeder, *, form: str, top_k: int | None, out: Path | None, is_null: bool = False
) -> int:
    """Write what a classifier says of files, and return how many of them can't be read or are not there.

    Args:
        given: Files, folders, patterns, or `-` for standard input.
        feeder: Brings them to the classifier.
        form: One of `FORMATS`.
        top_k: Classes per image; None for one, or the labels that are given.
        out: Where the rows go; None for standard output.
        is_null: Whether names on standard input end in a zero byte.

    Raises:
        UnfreezeError: If there is no file at all.
    """
    unmatched: list[Unmatched] = []
    found = find_paths(given, suffixes=image_suffixes(feeder.bands), listed=sys.stdin.buffer, is_null=is_null)
    parts = file_parts(_files(found, unmatched), bands=feeder.bands, size=feeder.batch_size)
    with _opened(out) as stream:
        predicted = predict(feeder, parts, top_k=top_k)
        bad = write_predictions(predicted, stream, form=form, classes=feeder.classifier.classes)
    return bad + len(unmatched)


def _files(found: Iterator[str | Unmatched], unmatched: list[Unmatched]) -> Iterator[str]:
    """Yield the files, and keep and name what is none; refuse where there is no file at all."""
    early: list[Unmatched] = []
    for first in found:
        if not isinstance(first, Unmatched):
            break
        early.append(first)
    else:
        told = "; ".join(f"{printable(path)} ({reason})" for path, reason in early[:5])
        more = f" and {len(early) - 5:,} more" if len(early) > 5 else ""
        raise UnfreezeError(f"predict: no image to look at: {told or 'nothing is listed on standard input'}{more}")
    for each in chain(early, [first], found):
        if isinstance(each, Unmatched):
            unmatched.append(each)
            sys.stderr.write(f"{printable(each.given)}: {each.reason}\n")
        else:
            yield each


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Yield where rows go: a file that is there when all are in it, or standard output."""
    if out is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    with replacing(out) as building, building.open("wb") as file:
        yield file
