"""What is exported: a network alone, or with its preprocessing before it and probabilities after."""

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
"""What the input is called."""

GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue, as torchvision has them."""


@dataclass(frozen=True)
class Signature:
    """What goes in and what comes out.

    Args:
        inside: Whether it takes uint8 and gives probabilities; else it takes what was preprocessed and gives logits.
        shape: Channels, height and width of an image.
        outputs: A name for each task's output, in order.
        sizes: The number of values in each.
        multilabel: Whether probabilities are those of labels, each for itself.
    """

    inside: bool
    shape: tuple[int, int, int]
    outputs: tuple[str, ...]
    sizes: tuple[int, ...]
    multilabel: bool

    @classmethod
    def of(cls, classifier: Classifier, *, inside: bool) -> "Signature":
        """Return how a classifier's file is called; with preprocessing, it takes what a run's data hands out."""
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
        """Of the input."""
        return torch.uint8 if self.inside else torch.float32

    @property
    def dynamic_shape(self) -> dict[int, torch.export.Dim]:
        """Which axis of the input may have any length."""
        return {0: torch.export.Dim("batch", min=1)}

    def example(self) -> Tensor:
        """Return two images to trace with."""
        return torch.zeros((2, *self.shape), dtype=self.dtype)

    @property
    def values(self) -> str:
        """What the outputs hold, in words."""
        if not self.inside:
            return "logits"
        return "probabilities, each label for itself" if self.multilabel else "probabilities, which sum to 1"

    def __str__(self) -> str:
        """Return it on one line."""
        kind = "uint8" if self.inside else "float32"
        values = "probabilities" if self.inside else "logits"
        out = ", ".join(f"(N, {size})" for size in self.sizes)
        return f"{kind} (N, {', '.join(map(str, self.shape))}) to {values} {out}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the metadata of a file."""
        seen = "values from 0 to 255" if self.inside else "resized, cropped, scaled to [0, 1] and normalised"
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "input": {"name": INPUT, "dtype": dtype, "shape": ["batch", *self.shape], "holds": seen},
            "outputs": [
                {"name": name, "dtype": "float32", "shape": ["batch", size], "holds": self.values}
                for name, size in zip(self.outputs, self.sizes, strict=True)
            ],
        }


class Graph(nn.Module):
    """A network whose logits come apart by task.

    Args:
        network: Gives the logits of all tasks.
        outputs: What they stand for.
    """

    def __init__(self, network: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits of the one task, or of each, shape (N, its classes), of preprocessed images."""
        return _one_or_all(self.outputs.split(self.network(images)))


class GraphFromPixels(nn.Module):
    """The whole way from uint8 images to probabilities, in operations that any runtime has.

    Args:
        network: Gives the logits of all tasks.
        outputs: What they stand for.
        preprocessing: What it does to images, on a CPU, this does to the last bit of each pixel.
        shape: Of an image that comes in: channels, height, width.
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
        """Return the probabilities of the one task, or of each, of uint8 images, shape (N, C, H, W)."""
        pixels = self.resize(images) if self.resize is not None else F.center_crop(images, [self.crop_px] * 2).float()
        if self.makes_grey:
            pixels = _to_grey(pixels)
        logits = self.network(pixels * self.scale + self.shift)
        return _one_or_all(self.outputs.split(self.outputs.probabilities(logits)))


def build_graph(classifier: Classifier, signature: Signature) -> nn.Module:
    """Return what is exported of a classifier, in eval mode."""
    network, outputs = classifier.network, classifier.outputs
    if not signature.inside:
        return Graph(network, outputs).eval()
    return GraphFromPixels(network, outputs, classifier.preprocessing, signature.shape).eval()


def _one_or_all(values: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return values[0] if len(values) == 1 else values


def _resize_of(preprocessing: Preprocessing, shape: tuple[int, int, int]) -> FixedPointResize | None:
    """Return the resize of images of one size; None where they have the right one."""
    size = shape[1:]
    sample = torch.empty((0, 1, *size), dtype=torch.uint8)
    height, width = preprocessing.resize(sample).shape[-2:]
    if (height, width) == size:
        return None
    return FixedPointResize(
        size, (height, width), crop_px=preprocessing.crop_px, interpolation=preprocessing.interpolation
    )


def _to_grey(pixels: Tensor) -> Tensor:
    """Return the grey of coloured pixels, rounded down, as torchvision computes it: by products that are not rounded.

    float64 holds such a product whole, so that its rounding to float32 is that of a fused multiply-add.
    """
    red, green, blue = (torch.tensor(share).double().item() for share in GREY)
    colours = pixels.double()
    grey = (colours[:, 0:1] * red).float().double()
    grey = (grey + colours[:, 1:2] * green).float().double()
    return torch.floor((grey + colours[:, 2:3] * blue).float())


def _names(values: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each task's output that every runtime takes: letters, digits and underscores, each once."""
    names: list[str] = []
    for number, task in enumerate(tasks):
        plain = re.sub(r"\W+", "_", task, flags=re.ASCII).strip("_")
        name = f"{values}_{plain or number}"
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)
