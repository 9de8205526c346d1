"""Comparison of an exported file's outputs with those of its classifier."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from unfreeze.errors import UnfreezeError
from unfreeze.inference.export.graph import Signature
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import DEFAULT_THRESHOLD, Outputs

TOLERANCE = 1e-4
"""The largest allowed difference of outputs, relative to the largest output."""

MAX_IMAGES = 256

_OF_SPREAD = 0.1
_NOISE = 1e-5
"""Rounding error of float32, relative to the largest output; it may also decide ties."""

RunFile = Callable[[Tensor], tuple[Tensor, ...]]
"""A function from a batch of images to the outputs of an exported file, one per task."""


class CheckFailedError(UnfreezeError):
    """The outputs of a file differ from those of its classifier; it is not put in place."""

    exit_code = 1


@dataclass(frozen=True, eq=False)
class CheckImages:
    """Images for the check of a file.

    Args:
        pixels: uint8, shape (N, C, H, W), as a run's data provides them; N >= 1.
        source: Description of the images.
        note: Reason why they are not the run's own; None if they are.
    """

    pixels: Tensor
    source: str
    note: str | None = None


@dataclass(frozen=True)
class CheckResult:
    """Agreement of a file's outputs with those of its classifier.

    Args:
        images: Number of images.
        batches: Sizes of the batches that they were passed in.
        same: Number of images with the same predictions: the same class of each task, or the same labels.
        difference: Largest difference of two outputs, relative to the largest output of the classifier.
        spread: Largest deviation of the classifier's outputs from their mean over the images, relative to the same.
    """

    images: int
    batches: tuple[int, ...]
    same: int
    difference: float
    spread: float

    @property
    def passed(self) -> bool:
        """True if the file can replace the classifier.

        If the outputs are nearly the same for all images, the difference must also be small relative to their spread;
        otherwise a file that ignores its input would pass.
        """
        small = self.difference <= max(_OF_SPREAD * self.spread, _NOISE) or self.images == 1
        return self.same == self.images and self.difference <= TOLERANCE and small

    @property
    def is_weak(self) -> bool:
        """True if the classifier's outputs hardly differ between the images, so that the check proves little."""
        return self.images == 1 or self.spread < TOLERANCE

    def __str__(self) -> str:
        """Return the result in words."""
        count = "all" if self.same == self.images else f"{self.same}"
        return f"the same prediction for {count}, values differ by {self.difference:.1e} of the largest"


def check_file(run_file: RunFile, classifier: Classifier, signature: Signature, images: CheckImages) -> CheckResult:
    """Compare a file's outputs with those of its classifier, computed in float32 on the CPU.

    Args:
        run_file: Runs the file on a batch.
        classifier: The classifier, in eval mode.
        signature: Inputs and outputs of the file.
        images: Images to run both on.

    Raises:
        CheckFailedError: If the outputs differ; the message states by how much.
    """
    expected, actual = [], []
    sizes = _batch_sizes(len(images.pixels))
    with torch.no_grad():
        for pixels in _batches(images.pixels, sizes):
            preprocessed = classifier.preprocessing(pixels)
            logits = classifier.network(preprocessed)
            outputs = run_file(pixels.contiguous() if signature.inside else preprocessed.contiguous())
            expected.append(classifier.outputs.probabilities(logits) if signature.inside else logits)
            actual.append(torch.cat(list(outputs), dim=1))
    result = compare(
        torch.cat(expected),
        torch.cat(actual),
        classifier.outputs,
        thresholds=_thresholds(classifier, signature),
        batches=sizes,
    )
    if not result.passed:
        raise CheckFailedError(
            f"export: the file's outputs differ from those of the run's network: of {result.images} {images.source}, "
            f"{result}; allowed are {TOLERANCE:.0e} and the same prediction for all. Nothing was written"
        )
    return result


def compare(
    expected: Tensor, actual: Tensor, outputs: Outputs, *, thresholds: Sequence[float], batches: tuple[int, ...] = ()
) -> CheckResult:
    """Return the agreement of two tables of outputs.

    Args:
        expected: Outputs of the classifier, shape (N, C).
        actual: Outputs of the file, shape (N, C).
        outputs: Tasks and classes of the columns.
        thresholds: The value from which each label is predicted, length C; used for multi-label outputs only.
        batches: Sizes of the batches, for the result.
    """
    scale = float(expected.abs().max())
    gap = float((expected - actual).abs().max())
    spread = float((expected - expected.mean(dim=0)).abs().max())
    noise = _NOISE * scale
    if outputs.multilabel:
        limits = torch.tensor(thresholds)
        same = (((expected >= limits) == (actual >= limits)) | ((expected - limits).abs() <= noise)).all(dim=1)
    else:
        same = torch.ones(len(expected), dtype=torch.bool)
        for own, other in zip(outputs.split(expected), outputs.split(actual), strict=True):
            predicted = own.gather(1, other.argmax(dim=1, keepdim=True))[:, 0]
            same &= predicted >= own.max(dim=1).values - noise
    difference = 0.0 if gap == 0 else gap / scale if scale else float("inf")
    return CheckResult(
        images=len(expected),
        batches=batches,
        same=int(same.sum()),
        difference=difference if torch.isfinite(actual).all() else float("inf"),
        spread=spread / scale if scale else 0.0,
    )


def _thresholds(classifier: Classifier, signature: Signature) -> tuple[float, ...]:
    """Return the value from which each label is predicted: a probability, or its logit."""
    probabilities = classifier.thresholds or (DEFAULT_THRESHOLD,) * len(classifier.outputs)
    return probabilities if signature.inside else tuple(torch.tensor(probabilities).logit().tolist())


def _batch_sizes(count: int) -> tuple[int, ...]:
    """Return two different batch sizes for some images; only one for a single image."""
    return tuple(dict.fromkeys((min(32, -(-count * 2 // 3)), min(7, -(-count // 3)))))


def _batches(images: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    first = 0
    for size in cycle(sizes):
        if first >= len(images):
            return
        yield images[first : first + size]
        first += size
