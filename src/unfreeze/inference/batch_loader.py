"""Loading of image batches: decoded ahead of the network, and preprocessed as in validation, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfreeze.data.sources.bands import bands_for
from unfreeze.data.sources.images import Readable
from unfreeze.data.store.blocks import BlockDecoder, DecodedBlock
from unfreeze.data.store.framing import Frame, Resize
from unfreeze.inference.inputs import ImageChunk
from unfreeze.models.classifier import Classifier
from unfreeze.system.accelerator import to_device
from unfreeze.system.cores import MAX_WORKERS, usable_cores

BATCH_SIZE = 64
_FEW_CHUNKS = 2
"""Up to this many chunks, decoding in this process is faster than starting workers."""


class ImageBatch(NamedTuple):
    """A batch of preprocessed images.

    Args:
        names: Names of the images that could be read, in order.
        images: float32, shape (n, C, H, W), on the device.
        unreadable: Name and reason of each image that could not be read.
    """

    names: tuple[str, ...]
    images: Tensor
    unreadable: tuple[tuple[str, str], ...]


class BatchLoader:
    """Loads batches of images for a classifier.

    Args:
        classifier: The classifier; it is moved to the device, in channels-last memory format.
        device: The device that it runs on.
        batch_size: Images per batch, >= 1.
        workers: Decoding processes; 0 for this one alone, None for one per usable core, up to 16.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: torch.device,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> None:
        self.classifier = classifier
        self.device = device
        self.batch_size = batch_size
        self.bands = bands_for(len(classifier.preprocessing.mean))
        self._workers = min(MAX_WORKERS, usable_cores()) if workers is None else workers
        self._resized = Frame.choose(None, Resize.of(classifier.preprocessing), self.bands)
        classifier.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load(self, chunks: Iterable[ImageChunk]) -> Iterator[ImageBatch]:
        """Yield a batch per chunk of images, in order; chunks are consumed lazily."""
        upcoming = iter(chunks)
        first = list(islice(upcoming, _FEW_CHUNKS + 1))
        decoder = self._decoder(workers=self._workers if len(first) > _FEW_CHUNKS else 0)
        names: deque[tuple[str, ...]] = deque()

        def readables() -> Iterator[Readable]:
            for chunk in chain(first, upcoming):
                names.append(chunk.names)
                yield chunk.images

        for block in decoder.decode_parts(readables()):
            yield self._batch(names.popleft(), block)

    def prepare(self, images: Tensor) -> Tensor:
        """Return uint8 images, shape (N, C, H, W), preprocessed, on the device."""
        prepared = self.classifier.preprocessing(to_device(images, self.device))
        return prepared.contiguous(memory_format=torch.channels_last)

    def _decoder(self, *, workers: int) -> BlockDecoder:
        if self.classifier.native_px is None:
            return BlockDecoder(None, self._resized, workers=workers)
        width, height = self.classifier.native_px
        frame = Frame(height, width, None, self.bands)
        return BlockDecoder(None, frame, workers=workers, other=self._resized)

    def _batch(self, names: tuple[str, ...], block: DecodedBlock) -> ImageBatch:
        read = [row for row in range(len(names)) if row not in block.unreadable]
        unreadable = tuple((names[row], reason) for row, reason in sorted(block.unreadable.items()))
        return ImageBatch(tuple(names[row] for row in read), self._images(read, block), unreadable)

    def _images(self, read: list[int], block: DecodedBlock) -> Tensor:
        """Return the images of some rows; images of equal shape are preprocessed together."""
        assert block.pixels is not None
        native = [place for place, row in enumerate(read) if row not in block.others]
        if len(native) == len(block.pixels):
            return self.prepare(_channels_first(block.pixels))
        side = self.classifier.preprocessing.crop_px
        channels = len(self.classifier.preprocessing.mean)
        shape = len(read), channels, side, side
        images = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        if native:
            images[native] = self.prepare(_channels_first(block.pixels[[read[place] for place in native]]))
        if block.others:
            others = [place for place, row in enumerate(read) if row in block.others]
            images[others] = self.prepare(_channels_first(np.stack([block.others[read[place]] for place in others])))
        return images


def _channels_first(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
