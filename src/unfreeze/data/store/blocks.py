"""Blocks of decoded images, by worker processes: Python decodes small images one at a time whatever the threads."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from unfreeze.data.sources.decoding import DecodedImage, UnreadableImageError, quiet_decoders
from unfreeze.data.sources.images import Indices, Readable
from unfreeze.data.store.framing import Frame

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1


class DecodedBlock(NamedTuple):
    """Some images, decoded, and what their files were.

    Args:
        indices: Of the images in their source, shape (n,).
        pixels: uint8, shape (n, H, W, C), zeros for what can't be read; None where no pixels were asked for.
        sizes: Width and height as shown, int32, shape (n, 2), zeros for what can't be read.
        digests: Hashes of the contents, dtype V16, shape (n,).
        kinds: Format and mode of each file.
        unreadable: Why, by index.
        is_foreign: An image has another size than the frame keeps; what follows it was not decoded.
        others: Images that the frame does not hold, in the shape of the frame for these, by index; zeros in `pixels`.
    """

    indices: Indices
    pixels: NDArray[np.uint8] | None
    sizes: NDArray[np.int32]
    digests: NDArray[np.void]
    kinds: list[str]
    unreadable: dict[int, str]
    is_foreign: bool
    others: dict[int, NDArray[np.uint8]]


class BlockDecoder:
    """Decodes blocks of images ahead of the one who asks for them; can be asked again, and by several at a time.

    Args:
        images: What to decode; None where parts bring it along.
        frame: The shape to bring it to.
        workers: Processes for each who asks; 0 to decode in this one.
        keep_pixels: Whether pixels are wanted, or facts alone.
        other: The shape for images that the frame does not hold; None to stop at the first of them.
    """

    def __init__(
        self,
        images: Readable | None,
        frame: Frame,
        *,
        workers: int,
        keep_pixels: bool = True,
        other: Frame | None = None,
    ) -> None:
        self._blocks = _Blocks(images, frame, other, keep_pixels)
        self._workers = workers
        self._idle: list[tuple[DataLoader[DecodedBlock], _Upcoming]] = []

    def decode(self, chunks: Sequence[Indices]) -> Iterator[DecodedBlock]:
        """Yield the images of each chunk, in order."""
        return self._decode(chunks)

    def decode_parts(self, parts: Iterable[Readable]) -> Iterator[DecodedBlock]:
        """Yield the images of each part, in order; no more parts are asked for than there are workers to feed."""
        return self._decode(parts)

    def _decode(self, asked: Iterable[Indices | Readable]) -> Iterator[DecodedBlock]:
        # Validation may come in the middle of a training epoch: it gets workers of its own.
        loader, upcoming = self._idle.pop() if self._idle else self._start()
        upcoming.asked = asked
        try:
            yield from loader
        finally:
            self._idle.append((loader, upcoming))

    def _start(self) -> "tuple[DataLoader[DecodedBlock], _Upcoming]":
        upcoming = _Upcoming()
        options: dict[str, Any] = {}
        if self._workers:
            options = {
                "persistent_workers": True,
                "prefetch_factor": 2,
                "worker_init_fn": partial(_follow, os.getpid()),
            }
            if sys.platform.startswith("linux"):
                # Under joblib's launcher the default context is not one that a DataLoader can use.
                options["multiprocessing_context"] = "fork"
        # As arrays, which travel through pipes: containers often have next to no shared memory for tensors.
        loader: DataLoader[DecodedBlock] = DataLoader(
            self._blocks,
            sampler=upcoming,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            **options,
        )
        return loader, upcoming


class _Upcoming:
    asked: Iterable[Indices | Readable] = ()

    def __iter__(self) -> Iterator[Indices | Readable]:
        return iter(self.asked)


class _Blocks(Dataset[DecodedBlock]):
    def __init__(self, images: Readable | None, frame: Frame, other: Frame | None, keep_pixels: bool) -> None:
        self._images = images
        self._frame = frame
        self._other = other
        self._keep_pixels = keep_pixels

    def __getitem__(self, asked: Indices | Readable) -> DecodedBlock:
        images, indices = (self._images, asked) if isinstance(asked, np.ndarray) else (asked, np.arange(len(asked)))
        assert images is not None
        shape = (len(indices), self._frame.height_px, self._frame.width_px, self._frame.bands)
        block = DecodedBlock(
            indices=indices,
            pixels=np.zeros(shape, dtype=np.uint8) if self._keep_pixels else None,
            sizes=np.zeros((len(indices), 2), dtype=np.int32),
            digests=np.zeros(len(indices), dtype="V16"),
            kinds=[""] * len(indices),
            unreadable={},
            is_foreign=False,
            others={},
        )
        with quiet_decoders():
            for row, index in enumerate(indices.tolist()):
                try:
                    decoded = images.read(index)
                except UnreadableImageError as error:
                    block.unreadable[index] = str(error)
                    continue
                if not self._frame.holds(decoded.image):
                    if self._other is None:
                        return block._replace(is_foreign=True)
                    block.others[index] = self._other.apply(decoded.image)
                self._fill(block, row, decoded)
        return block

    def _fill(self, block: DecodedBlock, row: int, decoded: DecodedImage) -> None:
        if block.pixels is not None and int(block.indices[row]) not in block.others:
            block.pixels[row] = self._frame.apply(decoded.image)
        block.sizes[row] = decoded.image.size
        block.digests[row] = np.void(decoded.digest)
        block.kinds[row] = f"{decoded.format} {decoded.mode}"


def _as_it_is(block: T) -> T:
    return block


def _follow(parent: int, _: int) -> None:
    """Leave signals to the process that asked, and end with it even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
