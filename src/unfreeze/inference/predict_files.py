"""`unfreeze predict`: write the predictions for files as rows."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from unfreeze.data.sources.images import printable
from unfreeze.data.sources.walking import image_suffixes
from unfreeze.errors import UnfreezeError
from unfreeze.inference.batch_loader import BatchLoader
from unfreeze.inference.device import claim_device
from unfreeze.inference.inputs import chunk_files
from unfreeze.inference.paths import Unmatched, find_paths
from unfreeze.inference.prediction import predict
from unfreeze.inference.writers import FORMATS, write_predictions
from unfreeze.models.find_model import find_classifier
from unfreeze.system.files import replacing


def format_of(requested: str | None, out: Path | None) -> str:
    """Return the requested format, else that of the file's suffix, else "table".

    Raises:
        UnfreezeError: If the format is unknown or the folder of the file is missing.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise UnfreezeError(f"--out: there is no folder {str(out.parent)!r}; make it, or type another file")
    form = requested or (out.suffix.lower().removeprefix(".") if out is not None else "")
    if requested is not None and requested not in FORMATS:
        raise UnfreezeError(f"--format: got {requested!r}, want one of {', '.join(FORMATS)}")
    return form if form in FORMATS else "table"


def open_loader(
    model: str,
    *,
    weights: Path | None,
    device: str,
    batch_size: int,
    workers: int | None,
    trust_repo: bool = False,
) -> BatchLoader:
    """Return a batch loader for a model by name or path; see `find_classifier` and `BatchLoader`."""
    torch_device = claim_device(device)
    classifier = find_classifier(model, weights=weights, trust_repo=trust_repo)
    return BatchLoader(classifier, device=torch_device, batch_size=batch_size, workers=workers)


def predict_files(
    given: Sequence[str], loader: BatchLoader, *, form: str, top_k: int | None, out: Path | None, is_null: bool = False
) -> int:
    """Write the predictions of a classifier for files, and return the number of missing or unreadable ones.

    Args:
        given: Files, folders, patterns, or `-` for standard input.
        loader: Loads their images for the classifier.
        form: One of `FORMATS`.
        top_k: Classes per image; None for one, or for the labels above their thresholds.
        out: The file for the rows; None for standard output.
        is_null: True if names on standard input end in a zero byte.

    Raises:
        UnfreezeError: If no file is found.
    """
    unmatched: list[Unmatched] = []
    paths = find_paths(given, suffixes=image_suffixes(loader.bands), listed=sys.stdin.buffer, is_null=is_null)
    chunks = chunk_files(_files(paths, unmatched), bands=loader.bands, size=loader.batch_size)
    with _opened(out) as stream:
        predicted = predict(loader, chunks, top_k=top_k)
        bad = write_predictions(predicted, stream, form=form, classes=loader.classifier.classes)
    return bad + len(unmatched)


def _files(paths: Iterator[str | Unmatched], unmatched: list[Unmatched]) -> Iterator[str]:
    """Yield the files; collect and report unmatched paths, and raise if nothing matches."""
    early: list[Unmatched] = []
    for first in paths:
        if not isinstance(first, Unmatched):
            break
        early.append(first)
    else:
        reasons = "; ".join(f"{printable(path)} ({reason})" for path, reason in early[:5])
        more = f" and {len(early) - 5:,} more" if len(early) > 5 else ""
        raise UnfreezeError(f"predict: no images: {reasons or 'nothing is listed on standard input'}{more}")
    for each in chain(early, [first], paths):
        if isinstance(each, Unmatched):
            unmatched.append(each)
            sys.stderr.write(f"{printable(each.given)}: {each.reason}\n")
        else:
            yield each


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Yield the output stream: standard output, or a file that appears when it is complete."""
    if out is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    with replacing(out) as building, building.open("wb") as file:
        yield file
