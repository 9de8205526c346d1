"""Blocks of images decoded by worker processes, as threads of Python do not decode small images in parallel."""

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
    """Decoded images with facts about their files.

    Args:
        indices: Indices of the images in their source, shape (n,).
        pixels: Pixels, uint8, shape (n, H, W, C), zeros for unreadable images; None if only facts were requested.
        sizes: Width and height as shown, int32, shape (n, 2), zeros for unreadable images.
        digests: Hashes of the files' contents, dtype V16, shape (n,).
        kinds: Format and mode of each file.
        unreadable: Reasons why images can't be read, by index.
        has_other_size: Whether an image does not fit the frame; the images after it were not decoded.
        others: Images that do not fit the frame, in the shape of the other frame, by index; zeros in `pixels`.
    """

    indices: Indices
    pixels: NDArray[np.uint8] | None
    sizes: NDArray[np.int32]
    digests: NDArray[np.void]
    kinds: list[str]
    unreadable: dict[int, str]
    has_other_size: bool
    others: dict[int, NDArray[np.uint8]]


class BlockDecoder:
    """Prefetching decoder of blocks of images, reusable, also by several iterators at a time.

    Args:
        images: Images to decode; None if only `decode_parts` is used.
        frame: Shape of the decoded images.
        workers: Number of processes per iterator; 0 to decode in this process.
        keep_pixels: Whether to return pixels, or only facts.
        other: Shape of the images that do not fit the frame; None to stop at the first of them.
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
        """Yield the images of each part, in order; parts are consumed only as fast as the workers decode them."""
        return self._decode(parts)

    def _decode(self, requests: Iterable[Indices | Readable]) -> Iterator[DecodedBlock]:
        # Validation in the middle of a training epoch has its own workers.
        loader, upcoming = self._idle.pop() if self._idle else self._start()
        upcoming.requests = requests
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
                "worker_init_fn": partial(_end_with_parent, os.getpid()),
            }
            if sys.platform.startswith("linux"):
                # A DataLoader can't use the default context of joblib's launcher.
                options["multiprocessing_context"] = "fork"
        # Arrays are sent through pipes; tensors need shared memory, of which containers often have little.
        loader: DataLoader[DecodedBlock] = DataLoader(
            self._blocks,
            sampler=upcoming,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self._workers,
            **options,
        )
        return loader, upcoming


class _Upcoming:
    requests: Iterable[Indices | Readable] = ()

    def __iter__(self) -> Iterator[Indices | Readable]:
        return iter(self.requests)


class _Blocks(Dataset[DecodedBlock]):
    def __init__(self, images: Readable | None, frame: Frame, other: Frame | None, keep_pixels: bool) -> None:
        self._images = images
        self._frame = frame
        self._other = other
        self._keep_pixels = keep_pixels

    def __getitem__(self, request: Indices | Readable) -> DecodedBlock:
        if isinstance(request, np.ndarray):
            images, indices = self._images, request
        else:
            images, indices = request, np.arange(len(request))
        assert images is not None
        shape = (len(indices), self._frame.height_px, self._frame.width_px, self._frame.bands)
        block = DecodedBlock(
            indices=indices,
            pixels=np.zeros(shape, dtype=np.uint8) if self._keep_pixels else None,
            sizes=np.zeros((len(indices), 2), dtype=np.int32),
            digests=np.zeros(len(indices), dtype="V16"),
            kinds=[""] * len(indices),
            unreadable={},
            has_other_size=False,
            others={},
        )
        with quiet_decoders():
            for row, index in enumerate(indices.tolist()):
                try:
                    decoded = images.read(index)
                except UnreadableImageError as error:
                    block.unreadable[index] = str(error)
                    continue
                if not self._frame.fits(decoded.image):
                    if self._other is None:
                        return block._replace(has_other_size=True)
                    block.others[index] = self._other.apply(decoded.image)
                self._fill(block, row, decoded)
        return block

    def _fill(self, block: DecodedBlock, row: int, decoded: DecodedImage) -> None:
        if block.pixels is not None and int(block.indices[row]) not in block.others:
            block.pixels[row] = self._frame.apply(decoded.image)
        block.sizes[row] = decoded.image.size
        block.digests[row] = np.void(decoded.digest)
        block.kinds[row] = f"{decoded.format} {decoded.mode}"


def _unchanged(block: T) -> T:
    return block


def _end_with_parent(parent: int, _: int) -> None:
    """Ignore interrupts, which the parent process handles, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
