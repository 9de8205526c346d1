"""Whether a file answers as the classifier that it was made from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from unfreeze.errors import UnfreezeError
from unfreeze.inference.export.graph import Signature
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import GIVEN_AT, Outputs

TOLERANCE = 1e-4
"""The most that an answer may differ, as a share of the largest."""

MOST_IMAGES = 256

_OF_SPREAD = 0.1
_NOISE = 1e-5
"""Of the largest answer: what float32 leaves open, also which of two equal ones is larger."""

Answer = Callable[[Tensor], tuple[Tensor, ...]]


class CheckFailedError(UnfreezeError):
    """A file answers otherwise than its original; it is not put in place."""

    exit_code = 1


@dataclass(frozen=True, eq=False)
class CheckImages:
    """What a file is tried on.

    Args:
        pixels: uint8, shape (N, C, H, W), as a run's data hands them out; N >= 1.
        source: Which they are, in words.
        note: Why they are not the run's own; None where they are.
    """

    pixels: Tensor
    source: str
    note: str | None = None


@dataclass(frozen=True)
class Verdict:
    """How near a file's answers are to the original's.

    Args:
        images: The number of images.
        batches: The sizes of the batches that they were given in.
        same: On how many of them both say the same: the same class of each task, the same labels.
        difference: Largest difference of two answers, as a share of the largest answer of the original.
        spread: How far the original's answers to these images lie apart, as a share of the same.
    """

    images: int
    batches: tuple[int, ...]
    same: int
    difference: float
    spread: float

    @property
    def holds(self) -> bool:
        """Whether the file may stand for the original.

        Where the answers are nearly the same for all images, the difference has to be small beside what tells them
        apart, too; a file that does not look at its images would pass otherwise.
        """
        small = self.difference <= max(_OF_SPREAD * self.spread, _NOISE) or self.images == 1
        return self.same == self.images and self.difference <= TOLERANCE and small

    @property
    def is_weak(self) -> bool:
        """Whether the original hardly tells these images apart, so that little is known."""
        return self.images == 1 or self.spread < TOLERANCE

    def __str__(self) -> str:
        """Return it in words."""
        agree = "the same answer to all" if self.same == self.images else f"the same answer to {self.same}"
        return f"{agree}, values differ by {self.difference:.1e} of the largest"


def check_file(answer: Answer, classifier: Classifier, signature: Signature, images: CheckImages) -> Verdict:
    """Return how a file's answers compare with those of the classifier itself, computed in float32 on the CPU.

    Args:
        answer: Runs the file.
        classifier: The original, in eval mode.
        signature: What the file takes and gives.
        images: To ask both.

    Raises:
        CheckFailedError: If they differ; it says by how much.
    """
    ours, theirs = [], []
    sizes = _batch_sizes(len(images.pixels))
    with torch.no_grad():
        for pixels in _batches(images.pixels, sizes):
            seen = classifier.preprocessing(pixels)
            logits = classifier.network(seen)
            given = answer(pixels.contiguous() if signature.inside else seen.contiguous())
            ours.append(classifier.outputs.probabilities(logits) if signature.inside else logits)
            theirs.append(torch.cat(list(given), dim=1))
    verdict = compare(
        torch.cat(ours),
        torch.cat(theirs),
        classifier.outputs,
        thresholds=_thresholds(classifier, signature),
        batches=sizes,
    )
    if not verdict.holds:
        raise CheckFailedError(
            f"export: the file does not answer as the run's network does: of {verdict.images} {images.source}, "
            f"{verdict}; allowed are {TOLERANCE:.0e} and the same answer to all. Nothing was written"
        )
    return verdict


def compare(
    ours: Tensor, theirs: Tensor, outputs: Outputs, *, thresholds: Sequence[float], batches: tuple[int, ...] = ()
) -> Verdict:
    """Return how near two tables of answers are.

    Args:
        ours: Of the original, shape (N, C).
        theirs: Of the file, shape (N, C).
        outputs: What the columns stand for.
        thresholds: The value from which each label is given, length C; of labels only.
        batches: In which the images were given.
    """
    scale = float(ours.abs().max())
    gap = float((ours - theirs).abs().max())
    spread = float((ours - ours.mean(dim=0)).abs().max())
    noise = _NOISE * scale
    if outputs.multilabel:
        at = torch.tensor(thresholds)
        same = (((ours >= at) == (theirs >= at)) | ((ours - at).abs() <= noise)).all(dim=1)
    else:
        same = torch.ones(len(ours), dtype=torch.bool)
        for own, other in zip(outputs.split(ours), outputs.split(theirs), strict=True):
            said = own.gather(1, other.argmax(dim=1, keepdim=True))[:, 0]
            same &= said >= own.max(dim=1).values - noise
    difference = 0.0 if gap == 0 else gap / scale if scale else float("inf")
    return Verdict(
        images=len(ours),
        batches=batches,
        same=int(same.sum()),
        difference=difference if torch.isfinite(theirs).all() else float("inf"),
        spread=spread / scale if scale else 0.0,
    )


def _thresholds(classifier: Classifier, signature: Signature) -> tuple[float, ...]:
    """Return from which value each label is given: a probability, or the logit of it."""
    at = classifier.thresholds or (GIVEN_AT,) * len(classifier.outputs)
    return at if signature.inside else tuple(torch.tensor(at).logit().tolist())


def _batch_sizes(count: int) -> tuple[int, ...]:
    """Return the two sizes of the batches that some images are given in, or the one where there is but one image."""
    return tuple(dict.fromkeys((min(32, -(-count * 2 // 3)), min(7, -(-count // 3)))))


def _batches(images: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    first = 0
    for size in cycle(sizes):
        if first >= len(images):
            return
        yield images[first : first + size]
        first += size
