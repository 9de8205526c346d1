"""Modules for export: a network alone, or from uint8 pixels to probabilities."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from unfreeze.data.sources.bands import RGB, bands_for
from unfreeze.data.store.framing import Frame, Resize
from unfreeze.inference.export.resizing import FixedPointResize
from unfreeze.models.classifier import Classifier
from unfreeze.models.outputs import Outputs
from unfreeze.models.preprocessing import Preprocessing

INPUT = "images"
"""Name of the input."""

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue, as in torchvision."""


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of an exported file.

    Args:
        inside: True for uint8 to probabilities; False for preprocessed images to logits.
        shape: Channels, height and width of an image.
        outputs: Name of each task's output, in order.
        sizes: Number of values in each output.
        multilabel: True if the probabilities are those of independent labels.
    """

    inside: bool
    shape: tuple[int, int, int]
    outputs: tuple[str, ...]
    sizes: tuple[int, ...]
    multilabel: bool

    @classmethod
    def of(cls, classifier: Classifier, *, inside: bool) -> "Signature":
        """Return the signature of a classifier's file; with preprocessing, for images as a run's data provides them."""
        outputs, side = classifier.outputs, classifier.preprocessing.crop_px
        shape = (classifier.spec.in_chans, side, side)
        if inside:
            frame = Frame.choose(classifier.native_px, Resize.of(classifier.preprocessing))
            shape = (bands_for(classifier.spec.in_chans), frame.height_px, frame.width_px)
        values = "probabilities" if inside else "logits"
        names = (values,) if len(outputs.tasks) == 1 else _names(values, [task.name for task in outputs.tasks])
        return cls(inside, shape, names, outputs.sizes, outputs.multilabel)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the input."""
        return torch.uint8 if self.inside else torch.float32

    @property
    def dynamic_shape(self) -> dict[int, torch.export.Dim]:
        """The dynamic axis of the input, the batch."""
        return {0: torch.export.Dim("batch", min=1)}

    def example(self) -> Tensor:
        """Return a batch of two images for tracing."""
        return torch.zeros((2, *self.shape), dtype=self.dtype)

    @property
    def values(self) -> str:
        """Description of the output values."""
        if not self.inside:
            return "logits"
        return "probabilities, each label for itself" if self.multilabel else "probabilities, which sum to 1"

    def __str__(self) -> str:
        """Return the signature on one line."""
        kind = "uint8" if self.inside else "float32"
        values = "probabilities" if self.inside else "logits"
        out = ", ".join(f"(N, {size})" for size in self.sizes)
        return f"{kind} (N, {', '.join(map(str, self.shape))}) to {values} {out}"

    def to_dict(self) -> dict[str, Any]:
        """Return the signature as plain values for a file's metadata."""
        holds = "values from 0 to 255" if self.inside else "resized, cropped, scaled to [0, 1] and normalised"
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "input": {"name": INPUT, "dtype": dtype, "shape": ["batch", *self.shape], "holds": holds},
            "outputs": [
                {"name": name, "dtype": "float32", "shape": ["batch", size], "holds": self.values}
                for name, size in zip(self.outputs, self.sizes, strict=True)
            ],
        }


class Graph(nn.Module):
    """A network with one output of logits per task.

    Args:
        network: Network with the logits of all tasks as output.
        outputs: Tasks and classes of the logits.
    """

    def __init__(self, network: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits of preprocessed images, shape (N, C); of several tasks, a tuple."""
        return _one_or_all(self.outputs.split(self.network(images)))


class GraphFromPixels(nn.Module):
    """Preprocessing, network and probabilities in one module, in operations that any runtime supports.

    Args:
        network: Network with the logits of all tasks as output.
        outputs: Tasks and classes of the logits.
        preprocessing: Preprocessing of the run; its pixels on a CPU are reproduced bit by bit.
        shape: Channels, height and width of an input image.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, outputs: Outputs, preprocessing: Preprocessing, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs
        self.crop_px = preprocessing.crop_px
        self.makes_grey = len(preprocessing.mean) == 1 and shape[0] == RGB
        self.resize = _resize_of(preprocessing, shape)
        scale = 1 / (255 * torch.tensor(preprocessing.std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", (-255 * torch.tensor(preprocessing.mean) * scale).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the probabilities of uint8 images of shape (N, C, H, W), shape (N, C); of several tasks, a tuple."""
        pixels = self.resize(images) if self.resize is not None else F.center_crop(images, [self.crop_px] * 2).float()
        if self.makes_grey:
            pixels = _to_grey(pixels)
        logits = self.network(pixels * self.scale + self.shift)
        return _one_or_all(self.outputs.split(self.outputs.probabilities(logits)))


def build_graph(classifier: Classifier, signature: Signature) -> nn.Module:
    """Return the module to export for a classifier, in eval mode."""
    network, outputs = classifier.network, classifier.outputs
    if not signature.inside:
        return Graph(network, outputs).eval()
    return GraphFromPixels(network, outputs, classifier.preprocessing, signature.shape).eval()


def _one_or_all(values: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return values[0] if len(values) == 1 else values


def _resize_of(preprocessing: Preprocessing, shape: tuple[int, int, int]) -> FixedPointResize | None:
    """Return the resize of images of one size; None if they need none."""
    size = shape[1:]
    sample = torch.empty((0, 1, *size), dtype=torch.uint8)
    height, width = preprocessing.resize(sample).shape[-2:]
    if (height, width) == size:
        return None
    return FixedPointResize(
        size, (height, width), crop_px=preprocessing.crop_px, interpolation=preprocessing.interpolation
    )


def _to_grey(pixels: Tensor) -> Tensor:
    """Return grey pixels, rounded down, as torchvision computes them with fused multiply-adds.

    A product of float32 values is exact in float64, so that rounding the sum to float32 equals a fused multiply-add.
    """
    red, green, blue = (torch.tensor(share).double().item() for share in GREY)
    colours = pixels.double()
    grey = (colours[:, 0:1] * red).float().double()
    grey = (grey + colours[:, 1:2] * green).float().double()
    return torch.floor((grey + colours[:, 2:3] * blue).float())


def _names(values: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return unique names of the outputs, of letters, digits and underscores, which every runtime supports."""
    names: list[str] = []
    for number, task in enumerate(tasks):
        plain = re.sub(r"\W+", "_", task, flags=re.ASCII).strip("_")
        name = f"{values}_{plain or number}"
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)
