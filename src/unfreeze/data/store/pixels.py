"""Batches of uint8 pixels by index: from memory, from a memory-mapped file, or decoded on the way."""

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
"""Of a file that is not to stay mapped; a page that is touched brings up to 2 MB around it along."""


class Pixels(Protocol):
    """The pixels of a source's images, all of one shape."""

    nbytes: int
    place: str
    fits_in_memory: bool

    def batches(self, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """Yield the images of each chunk: uint8, shape (n, C, H, W), channels last in memory."""


class ResidentPixels:
    """Pixels in memory.

    Args:
        pixels: uint8, shape (N, H, W, C).
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
    """Pixels in a file that is mapped into memory, shared by all processes that map it.

    Args:
        path: An .npy file of uint8.
        shape: (N, H, W, C).
        resident_bytes: A file no larger than this stays mapped as it is touched; of a larger one, the pages of
            16 images at a time. The system's page cache keeps what it has room for besides.

    Raises:
        OSError, ValueError: If the file is not there, or not what it should be.
    """

    def __init__(self, path: Path, *, shape: tuple[int, ...], resident_bytes: int) -> None:
        with path.open("rb") as file:
            # Not a private mapping: the kernel would want memory for all of it.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            version = np.lib.format.read_magic(file)
            assert version == (1, 0)
            found, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        if found != shape or dtype != np.uint8 or len(self._map) != offset + math.prod(shape):
            raise ValueError(f"{path} holds something else than uint8 of shape {shape}")
        pixels: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8, offset=offset).reshape(shape)
        with warnings.catch_warnings():
            # Nothing is ever written through this tensor: torch/csrc/utils/tensor_numpy.cpp
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
    """Pixels that worker processes decode each time they are asked for.

    Args:
        images: What to decode.
        frame: The shape to bring it to.
        workers: Processes; 0 to decode in this one.
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
            UnfreezeError: If a file was whole once and can't be read, or has another size, now.
        """
        for chunk, block in zip(chunks, self._decoder.decode(chunks), strict=True):
            assert np.array_equal(chunk, block.indices)
            for index, reason in block.unreadable.items():
                raise UnfreezeError(f"data: {self._images.name(index)} can't be read any more ({reason})")
            if block.is_foreign or block.pixels is None:
                raise UnfreezeError("data: an image has another size than when the run began; start the run anew")
            yield _channels_first(torch.from_numpy(block.pixels))


def _as_index(chunk: Indices) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(chunk))


def _channels_first(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2)
