"""Export of a classifier to a checked file with a model card."""

import re
from dataclasses import dataclass
from pathlib import Path

from unfreeze.inference.export.card import Card, is_own, sections_of
from unfreeze.inference.export.check import CheckImages, CheckResult, RunFile, check_file
from unfreeze.inference.export.graph import Signature, build_graph
from unfreeze.inference.export.markdown import plain
from unfreeze.inference.export.metadata import as_strings, describe
from unfreeze.inference.export.onnx_file import open_onnx, write_onnx
from unfreeze.inference.export.placing import placing
from unfreeze.inference.export.provenance import Provenance
from unfreeze.inference.export.request import SUFFIXES, Request
from unfreeze.inference.export.safetensors_file import open_safetensors, write_safetensors
from unfreeze.inference.export.snippets import snippet
from unfreeze.inference.export.stock import Stock, find_stock
from unfreeze.inference.export.torch_file import open_torch, write_torch
from unfreeze.models.classifier import Classifier

CARD = "README.md"


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported file.

    Args:
        file: The file.
        card: Its model card.
        nbytes: Size of the file, with a separate file of weights if there is one.
        signature: Its inputs and outputs.
        images: Description of the images it was checked on.
        check: Result of the check.
        notes: Notes on its limitations.
    """

    file: Path
    card: Path
    nbytes: int
    signature: Signature
    images: str
    check: CheckResult
    notes: tuple[str, ...]


def default_name(classifier: Classifier, checkpoint: Path, to: str, *, inside: bool) -> str:
    """Return the default name of a file."""
    parts = [classifier.architecture]
    parts += [checkpoint.stem] if checkpoint.stem != "best" else []
    parts += ["uint8"] if inside else []
    return re.sub(r"[^\w.-]+", "_", "-".join(parts)) + SUFFIXES[to]


def export_classifier(
    classifier: Classifier, request: Request, *, images: CheckImages, provenance: Provenance
) -> Exported:
    """Write a classifier as a file, check it, and put it in place with its model card.

    Args:
        classifier: In eval mode, in float32, on the CPU.
        request: The format, the file and its options.
        images: Images for the check.
        provenance: The run of the classifier.

    Raises:
        CheckFailedError: If the outputs of the file differ from the classifier's; nothing is written then.
        UnfreezeError: If the network can't be exported to this format, or the folder is not writable.
    """
    signature = Signature.of(classifier, inside=request.inside)
    stock = find_stock(classifier) if request.to == "safetensors" else None
    with placing(request.file.absolute().parent) as folder:
        file = folder / request.file.name
        run_file = _write(classifier, request, signature, stock, file)
        check = check_file(run_file, classifier, signature, images)
        nbytes = sum(each.stat().st_size for each in folder.iterdir())
        notes = _notes(classifier, request, stock, images, check)
        section = _section(classifier, request, signature, stock, images, check, notes)
        card = _card_beside(request.file)
        text = str(_card(classifier, provenance, request, section, card))
        # A class name may come from a file name that is not valid UTF-8.
        (folder / card.name).write_bytes(text.encode("utf-8", "backslashreplace"))
    return Exported(request.file, card, nbytes, signature, images.source, check, notes)


def _write(classifier: Classifier, request: Request, signature: Signature, stock: Stock | None, file: Path) -> RunFile:
    """Write a file, and return a function that runs it."""
    metadata = describe(classifier, signature)
    if request.to == "safetensors":
        write_safetensors(classifier, file, as_strings(metadata))
        return open_safetensors(file, classifier, stock)
    graph = build_graph(classifier, signature)
    if request.to == "onnx":
        write_onnx(graph, signature, file, as_strings(metadata))
        return open_onnx(file, signature)
    write_torch(graph, signature, file, metadata)
    return open_torch(file)


def _notes(
    classifier: Classifier, request: Request, stock: Stock | None, images: CheckImages, check: CheckResult
) -> tuple[str, ...]:
    notes = [images.note] if images.note else []
    if check.is_weak:
        notes.append(
            "the network's outputs hardly differ between the images of the check, which therefore proves little"
        )
    if request.to == "safetensors" and stock is None:
        notes.append("neither torchvision nor timm has this network: its entries have the names of the run's network")
    elif request.to == "safetensors" and stock is not None and not stock.takes_head:
        kind = "multi-task" if classifier.head.tasks else classifier.head.name
        notes.append(
            f"the head ({kind}, {', '.join(classifier.heads)}) is not {stock.library}'s own: {stock.call} takes the "
            "backbone only"
        )
    return tuple(notes)


def _section(
    classifier: Classifier,
    request: Request,
    signature: Signature,
    stock: Stock | None,
    images: CheckImages,
    check: CheckResult,
    notes: tuple[str, ...],
) -> str:
    """Return the section of the card on one file."""
    name = request.file.name
    batches = " and ".join(map(str, check.batches))
    lines = [
        f"### {plain(name)}",
        "",
        f"{signature}." if request.to != "safetensors" else "Weights and buffers; the header has classes and sizes.",
        "",
        f"Checked on {check.images} {images.source}, in batches of {batches}, against the network of the run: {check}.",
        *(f"Note: {plain(note)}." for note in notes),
        "",
        "```python",
        snippet(request.to, name, classifier, signature, stock).rstrip("\n"),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _card_beside(file: Path) -> Path:
    """Return the path for the card of a file, which never replaces a README that was not written here."""
    card = file.with_name(CARD)
    try:
        is_free = not card.exists() or is_own(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        is_free = False
    return card if is_free else file.with_name(f"{file.name}.{CARD}")


def _card(classifier: Classifier, provenance: Provenance, request: Request, section: str, card: Path) -> Card:
    """Return a card that keeps the sections of files that were exported to the same folder earlier."""
    earlier = sections_of(card.read_text(encoding="utf-8")) if card.exists() else {}
    sections = {name: text for name, text in earlier.items() if card.with_name(name).is_file()}
    library = {"onnx": "onnx", "torch": "pytorch", "safetensors": "pytorch"}[request.to]
    if request.to == "safetensors" and classifier.spec.source == "timm":
        library = "timm"
    return Card(classifier, provenance, request.license_name, library, {**sections, request.file.name: section})
