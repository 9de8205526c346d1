"""Images on their way to a network: decoded ahead of it, prepared as they were in training, in order."""

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
from unfreeze.inference.inputs import Part
from unfreeze.models.classifier import Classifier
from unfreeze.system.accelerator import to_device
from unfreeze.system.cores import MOST_WORKERS, usable_cores

BATCH_SIZE = 64
_FEW_PARTS = 2
"""So many are decoded before worker processes would be up."""


class Fed(NamedTuple):
    """Some images as a network sees them.

    Args:
        names: Of those that could be read, in order.
        images: float32, shape (n, C, H, W), on the device.
        unreadable: Names of those that could not, each with the reason.
    """

    names: tuple[str, ...]
    images: Tensor
    unreadable: tuple[tuple[str, str], ...]


class Feeder:
    """Brings images to a classifier.

    Args:
        classifier: Is moved to the device, its channels last in memory.
        device: Where it computes.
        batch_size: Images that pass through it together, >= 1.
        workers: Processes that decode; 0 for this one alone, None for one per core that this process may use, up to 16.
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
        self._workers = min(MOST_WORKERS, usable_cores()) if workers is None else workers
        self._resized = Frame.choose(None, Resize.of(classifier.preprocessing), self.bands)
        classifier.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def feed(self, parts: Iterable[Part]) -> Iterator[Fed]:
        """Yield the images of each part, in order; parts are asked for as they are needed."""
        upcoming = iter(parts)
        first = list(islice(upcoming, _FEW_PARTS + 1))
        decoder = self._decoder(workers=self._workers if len(first) > _FEW_PARTS else 0)
        names: deque[tuple[str, ...]] = deque()

        def noted() -> Iterator[Readable]:
            for part in chain(first, upcoming):
                names.append(part.names)
                yield part.images

        for block in decoder.decode_parts(noted()):
            yield self._fed(names.popleft(), block)

    def prepare(self, images: Tensor) -> Tensor:
        """Return uint8 images, shape (N, C, H, W), as the network sees them, on the device."""
        prepared = self.classifier.preprocessing(to_device(images, self.device))
        return prepared.contiguous(memory_format=torch.channels_last)

    def _decoder(self, *, workers: int) -> BlockDecoder:
        if self.classifier.native_px is None:
            return BlockDecoder(None, self._resized, workers=workers)
        width, height = self.classifier.native_px
        native = Frame(height, width, None, self.bands)
        return BlockDecoder(None, native, workers=workers, other=self._resized)

    def _fed(self, names: tuple[str, ...], block: DecodedBlock) -> Fed:
        read = [row for row in range(len(names)) if row not in block.unreadable]
        unreadable = tuple((names[row], reason) for row, reason in sorted(block.unreadable.items()))
        return Fed(tuple(names[row] for row in read), self._images(read, block), unreadable)

    def _images(self, read: list[int], block: DecodedBlock) -> Tensor:
        """Return the images of some rows; those of each shape are prepared together."""
        assert block.pixels is not None
        framed = [place for place, row in enumerate(read) if row not in block.others]
        if len(framed) == len(block.pixels):
            return self.prepare(_channels_first(block.pixels))
        side = self.classifier.preprocessing.crop_px
        channels = len(self.classifier.preprocessing.mean)
        shape = len(read), channels, side, side
        images = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        if framed:
            images[framed] = self.prepare(_channels_first(block.pixels[[read[place] for place in framed]]))
        if block.others:
            others = [place for place, row in enumerate(read) if row in block.others]
            images[others] = self.prepare(_channels_first(np.stack([block.others[read[place]] for place in others])))
        return images


def _channels_first(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
