"""From a classifier to a file that has been checked, with its model card."""

import re
from dataclasses import dataclass
from pathlib import Path

from unfreeze.inference.export.card import Card, is_own, sections_of
from unfreeze.inference.export.check import Answer, CheckImages, Verdict, check_file
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
    """What was written.

    Args:
        file: The file.
        card: Its model card.
        nbytes: Of the file and what lies beside it for it.
        signature: What it takes and gives.
        images: What they were compared on, in words.
        verdict: How it compared with the original.
        notes: What else a person should know.
    """

    file: Path
    card: Path
    nbytes: int
    signature: Signature
    images: str
    verdict: Verdict
    notes: tuple[str, ...]


def default_name(classifier: Classifier, checkpoint: Path, to: str, *, inside: bool) -> str:
    """Return what a file is called that nobody has named."""
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
        request: What is wanted.
        images: What the file is tried on.
        provenance: Where the classifier comes from.

    Raises:
        CheckFailedError: If the file does not answer as the classifier does; then nothing is written.
        UnfreezeError: If the network can't be written in this format, or nothing can be written there.
    """
    signature = Signature.of(classifier, inside=request.inside)
    stock = find_stock(classifier) if request.to == "safetensors" else None
    with placing(request.file.absolute().parent) as folder:
        file = folder / request.file.name
        answer = _write(classifier, request, signature, stock, file)
        verdict = check_file(answer, classifier, signature, images)
        nbytes = sum(each.stat().st_size for each in folder.iterdir())
        notes = _notes(classifier, request, stock, images, verdict)
        section = _section(classifier, request, signature, stock, images, verdict, notes)
        card = _card_beside(request.file)
        text = str(_card(classifier, provenance, request, section, card))
        # A class may be named after a file whose name is not UTF-8.
        (folder / card.name).write_bytes(text.encode("utf-8", "backslashreplace"))
    return Exported(request.file, card, nbytes, signature, images.source, verdict, notes)


def _write(classifier: Classifier, request: Request, signature: Signature, stock: Stock | None, file: Path) -> Answer:
    """Write a file, and return what runs it."""
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
    classifier: Classifier, request: Request, stock: Stock | None, images: CheckImages, verdict: Verdict
) -> tuple[str, ...]:
    notes = [images.note] if images.note else []
    if verdict.is_weak:
        notes.append("the network hardly tells the images of the check apart, so that it proves little")
    if request.to == "safetensors" and stock is None:
        notes.append("neither torchvision nor timm has this network: its entries have the names that it had in the run")
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
    verdict: Verdict,
    notes: tuple[str, ...],
) -> str:
    """Return what the card says of one file."""
    name = request.file.name
    batches = " and ".join(map(str, verdict.batches))
    lines = [
        f"### {plain(name)}",
        "",
        f"{signature}." if request.to != "safetensors" else "Weights and buffers; the header has classes and sizes.",
        "",
        f"Checked on {verdict.images} {images.source}, in batches of {batches}, against the network of the run: "
        f"{verdict}.",
        *(f"Note: {plain(note)}." for note in notes),
        "",
        "```python",
        snippet(request.to, name, classifier, signature, stock).rstrip("\n"),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _card_beside(file: Path) -> Path:
    """Return where the card of a file goes: another's README stays what it is."""
    card = file.with_name(CARD)
    try:
        is_free = not card.exists() or is_own(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        is_free = False
    return card if is_free else file.with_name(f"{file.name}.{CARD}")


def _card(classifier: Classifier, provenance: Provenance, request: Request, section: str, card: Path) -> Card:
    """Return a card that still tells how the files are used that were written beside this one before."""
    before = sections_of(card.read_text(encoding="utf-8")) if card.exists() else {}
    kept = {name: text for name, text in before.items() if card.with_name(name).is_file()}
    library = {"onnx": "onnx", "torch": "pytorch", "safetensors": "pytorch"}[request.to]
    if request.to == "safetensors" and classifier.spec.source == "timm":
        library = "timm"
    return Card(classifier, provenance, request.license_name, library, {**kept, request.file.name: section})
