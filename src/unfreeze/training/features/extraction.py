"""Extraction of the activations of a frozen prefix, in batches of one size."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze.data.image_data import ImageData
from unfreeze.data.loader import Batch
from unfreeze.data.sources.images import Indices
from unfreeze.errors import Stopped
from unfreeze.models.partition import Activations, activations_of
from unfreeze.system.accelerator import synchronize, to_device
from unfreeze.system.terminal import counting_bar
from unfreeze.training.features.table import FeatureTable
from unfreeze.training.module import ImageClassifier

_RECORDED_EVERY_S = 30.0
"""Interval between records of finished rows: the work that is lost if the process is killed."""

_CACHED_PIXELS = 1 << 20
_LARGEST_BATCH = {"cpu": 32, "cuda": 512}
_GPU_PIXELS = 512 * 128**2
"""Of a batch: 512 images at 128 px, 128 at 224 px."""


@dataclass(frozen=True)
class Kind:
    """The kind of features of an image.

    Args:
        epoch: The epoch whose draws augment the image; None for the image as evaluation sees it.
        precision: "32-true", or the precision that the run trains in.
        exact: Whether they are those of the network itself, not of a faster one that is nearly equal.
    """

    epoch: int | None
    precision: str
    exact: bool


@dataclass(frozen=True, eq=False)
class Extractor:
    """Computes the activations of a prefix.

    Args:
        module: Prepares the images; its frozen part is in eval mode.
        data: Holds them.
        prefix: Of a partition, or something faster that gives nearly the same.
        kind: What is computed.
        autocast: The context of a training step; used for what is not in float32.
    """

    module: ImageClassifier
    data: ImageData
    prefix: nn.Module
    kind: Kind
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def batch_size(self) -> int:
        """Images per batch: so many that their activations stay in a CPU's caches, or fill a GPU."""
        device = self.module.device.type
        largest = _LARGEST_BATCH.get(device, 64)
        pixels = _CACHED_PIXELS if device == "cpu" else _GPU_PIXELS
        fitting = pixels // self.module.preprocessing.crop_px**2
        return max(8, min(largest, 1 << max(0, fitting.bit_length() - 1)))

    def compute(self, indices: Indices) -> Iterator[tuple[Tensor, Activations]]:
        """Yield images and their activations; every batch is filled up, so that no row depends on how many there are.

        Args:
            indices: Images of the source, shape (n,).
        """
        size = self.batch_size
        chunks = [np.resize(indices[start : start + size], size) for start in range(0, len(indices), size)]
        rest = len(indices)
        for chunk, images in zip(chunks, self.data.store.pixels.batches(chunks), strict=True):
            index = torch.from_numpy(np.ascontiguousarray(chunk))
            activations = self.activations(images, index)
            yield index[:rest], tuple(activation[:rest] for activation in activations)
            rest -= size

    @torch.no_grad()
    def activations(self, images: Tensor, index: Tensor) -> Activations:
        """Return the activations of uint8 images, shape (n, 3, H, W), at some positions of the source."""
        device = self.module.device
        batch = Batch(to_device(images, device), index, index)
        if self.kind.epoch is None:
            prepared = self.module.prepared_for_evaluation(batch)
        else:
            prepared = self.module.prepared_for_training(batch, self.kind.epoch)
        with self.context():
            return activations_of(self.prefix, prepared.pixels)

    def context(self) -> AbstractContextManager[object]:
        """Return what sets the precision of what is computed."""
        if self.kind.precision.startswith("32"):
            return torch.autocast(self.module.device.type, enabled=False)
        return self.autocast()

    def seconds_per_image(self, indices: Indices) -> float:
        """Return what one image costs, by a batch of them; on an accelerator by the second, which finds it warm."""
        chunk = np.resize(indices, self.batch_size)
        images = self.data.store.read(chunk)
        index = torch.from_numpy(np.ascontiguousarray(chunk))
        device = self.module.device
        if device.type != "cpu":
            self.activations(images, index)
            synchronize(device)
        started = time.perf_counter()
        self.activations(images, index)
        synchronize(device)
        return (time.perf_counter() - started) / len(chunk)


def fill_table(
    table: FeatureTable,
    extractor: Extractor,
    images: Indices,
    *,
    record: Callable[[Indices], None] | None,
    shown: bool,
) -> None:
    """Extract the features of some images into a table.

    Args:
        table: Has a row for each image.
        extractor: Computes the rows.
        images: Images of the source, shape (n,).
        record: Called with the images that are done, now and then and when a signal ends the extraction; None where
            an extraction can't be continued.
        shown: Whether to show a bar in a terminal.

    Raises:
        Stopped: After a signal.
    """
    done, recorded = 0, time.perf_counter()
    with counting_bar("caching", len(images), shown=shown) as progress:
        try:
            for indices, activations in extractor.compute(images):
                table.put(indices, activations)
                done += len(indices)
                progress(done)
                if record is not None and time.perf_counter() - recorded > _RECORDED_EVERY_S:
                    record(images[:done])
                    recorded = time.perf_counter()
        except Stopped:
            if record is not None and done:
                record(images[:done])
            raise
