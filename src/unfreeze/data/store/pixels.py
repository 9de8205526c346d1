"""Batches of uint8 pixels by index: from memory, from a memory-mapped file, or decoded on demand."""

import math
import mmap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.data.sources.images import Images, Indices
from unfreeze.data.store.blocks import BlockDecoder
from unfreeze.data.store.framing import Frame
from unfreeze.errors import UnfreezeError

_MAPPED_IMAGES = 16
"""Images read from a large file before its pages are released; each page fault maps up to 2 MB around it."""


class Pixels(Protocol):
    """Pixels of a source's images, all of one shape."""

    nbytes: int
    place: str
    fits_in_memory: bool

    def batches(self, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """Yield the images of each chunk of indices: uint8, shape (n, C, H, W), channels last in memory."""


class ResidentPixels:
    """Pixels in memory.

    Args:
        pixels: Pixels of all images, uint8, shape (N, H, W, C).
    """

    place = "in RAM"
    fits_in_memory = True

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.nbytes = pixels.nbytes

    def batches(self, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """Yield the images of each chunk."""
        for chunk in chunks:
            yield _channels_first(self._pixels.index_select(0, _as_index(chunk)))


class MappedPixels:
    """Pixels in a memory-mapped file, shared by all processes that map it.

    Args:
        path: Path of an .npy file of uint8.
        shape: Expected shape, (N, H, W, C).
        resident_bytes: Largest file that stays resident once read; of larger ones, only the pages of 16 images at a
            time do. The page cache of the system is used in both cases.

    Raises:
        OSError, ValueError: If the file is missing or has another content.
    """

    def __init__(self, path: Path, *, shape: tuple[int, ...], resident_bytes: int) -> None:
        with path.open("rb") as file:
            # A private mapping would reserve memory for the whole file.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            version = np.lib.format.read_magic(file)
            assert version == (1, 0)
            found, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        if found != shape or dtype != np.uint8 or len(self._map) != offset + math.prod(shape):
            raise ValueError(f"{path} holds something else than uint8 of shape {shape}")
        pixels: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8, offset=offset).reshape(shape)
        with warnings.catch_warnings():
            # This tensor is only read: torch/csrc/utils/tensor_numpy.cpp
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._pixels = torch.from_numpy(pixels)
        self.nbytes = pixels.nbytes
        self.fits_in_memory = self.nbytes <= resident_bytes
        self.place = "in RAM" if self.fits_in_memory else "mapped from disk"

    def batches(self, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """Yield the images of each chunk."""
        for chunk in chunks:
            yield _channels_first(self._gather(_as_index(chunk)))

    def _gather(self, index: Tensor) -> Tensor:
        if self.fits_in_memory or not hasattr(mmap, "MADV_DONTNEED"):
            return self._pixels.index_select(0, index)
        gathered = self._pixels.new_empty((len(index), *self._pixels.shape[1:]))
        for start in range(0, len(index), _MAPPED_IMAGES):
            part = index[start : start + _MAPPED_IMAGES]
            torch.index_select(self._pixels, 0, part, out=gathered[start : start + len(part)])
            self._map.madvise(mmap.MADV_DONTNEED)
        return gathered


class StreamedPixels:
    """Pixels that worker processes decode on demand.

    Args:
        images: Images to decode.
        frame: Shape of the decoded images.
        workers: Number of processes; 0 to decode in this process.
    """

    place = "streamed from the files"
    fits_in_memory = False
    nbytes = 0

    def __init__(self, images: Images, frame: Frame, *, workers: int) -> None:
        self._images = images
        self._decoder = BlockDecoder(images, frame, workers=workers)

    def batches(self, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """Yield the images of each chunk, decoded ahead of time.

        Raises:
            UnfreezeError: If a file has become unreadable or has changed its size.
        """
        for chunk, block in zip(chunks, self._decoder.decode(chunks), strict=True):
            assert np.array_equal(chunk, block.indices)
            for index, reason in block.unreadable.items():
                raise UnfreezeError(f"data: {self._images.name(index)} can no longer be read ({reason})")
            if block.has_other_size or block.pixels is None:
                raise UnfreezeError("data: an image has another size than when the run began; start a new run")
            yield _channels_first(torch.from_numpy(block.pixels))


def _as_index(chunk: Indices) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(chunk))


def _channels_first(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2)
