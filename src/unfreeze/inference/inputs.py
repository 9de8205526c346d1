"""Images passed to a run in Python: paths, Pillow images, arrays or tensors."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unfreeze.data.sources.bands import RGB, Bands, bands_of
from unfreeze.data.sources.decoding import DecodedImage, as_seen, content_digest, decoding_errors, upright
from unfreeze.data.sources.images import FileImages, Readable, printable
from unfreeze.data.sources.walking import image_suffixes
from unfreeze.errors import UnfreezeError
from unfreeze.inference.paths import Unmatched, find_paths

Picture = Image.Image | NDArray[np.uint8]
ImageInput = (
    str | os.PathLike[str] | Picture | Tensor | Iterable[str | os.PathLike[str]] | Iterable[Picture] | Iterable[Tensor]
)
"""A path, a folder, a Pillow image, uint8 values of shape (H, W, C) or (N, C, H, W), or several of one kind."""


class ImageChunk(NamedTuple):
    """Images that are decoded together, with their names."""

    names: tuple[str, ...]
    images: Readable


def chunk_files(paths: Iterable[str], *, bands: int, size: int) -> Iterator[ImageChunk]:
    """Yield files in chunks of a given size."""
    upcoming = iter(paths)
    while names := tuple(islice(upcoming, size)):
        yield ImageChunk(names, FileImages("", names, bands))


def chunk_images(images: ImageInput, *, bands: int, size: int) -> Iterator[ImageChunk]:
    """Yield images in chunks of a given size.

    Raises:
        UnfreezeError: If a path has no image, or an input is not an image.
    """
    several = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Tensor) else images
    upcoming = iter(several)
    first = next(upcoming, None)
    if first is None:
        return
    every = chain([first], upcoming)
    if isinstance(first, str | os.PathLike):
        yield from chunk_files(_paths(every, bands), bands=bands, size=size)
        return
    pictures, done = _pictures(every, bands), 0
    while chunk := tuple(islice(pictures, size)):
        names = tuple(f"#{number}" for number in range(done, done + len(chunk)))
        yield ImageChunk(names, _Pictures(chunk, bands))
        done += len(chunk)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Images in memory."""

    pictures: Sequence[Picture]
    bands: int

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> DecodedImage:
        picture = self.pictures[index]
        with decoding_errors(Path(f"#{index}")):
            decoded = self._decode(picture)
        return DecodedImage(
            decoded, content_digest(b""), "memory", "RGB" if self.bands == RGB else f"{self.bands} bands"
        )

    def _decode(self, picture: Picture) -> "Image.Image | Bands":
        if isinstance(picture, Image.Image):
            if self.bands == RGB:
                return as_seen(picture)
            picture = np.atleast_3d(np.asarray(upright(picture)))
        return Image.fromarray(picture) if self.bands == RGB else bands_of(picture, self.bands)


def _paths(inputs: Iterator[Any], bands: int) -> Iterator[str]:
    for each in inputs:
        if not isinstance(each, str | os.PathLike):
            raise UnfreezeError(f"images: got {type(each).__name__} among paths; want only paths, or only images")
        for path in find_paths([os.fspath(each)], suffixes=image_suffixes(bands)):
            if isinstance(path, Unmatched):
                raise UnfreezeError(f"images: {printable(path.given)}: {path.reason}")
            yield path


def _pictures(inputs: Iterator[Any], bands: int) -> Iterator[Picture]:
    for each in inputs:
        if isinstance(each, Image.Image):
            yield each
        elif isinstance(each, np.ndarray | Tensor):
            yield from _of_array(each.cpu().numpy() if isinstance(each, Tensor) else each, bands)
        else:
            raise UnfreezeError(
                f"images: got {type(each).__name__}, want paths, Pillow images, or uint8 arrays or tensors"
            )


def _of_array(values: NDArray[Any], bands: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of an array, each of shape (H, W, C); a single channel is repeated."""
    if values.ndim == 4 and values.shape[1] in (1, bands):
        each = np.moveaxis(values, 1, -1)
    elif values.ndim == 3 and values.shape[2] in (1, bands):
        each = values[None]
    else:
        each = values[:0]
    if values.dtype != np.uint8 or not len(each):
        channels = f"1 or {bands}" if bands == RGB else str(bands)
        raise UnfreezeError(
            f"images: got {values.dtype} of shape {tuple(values.shape)}, want uint8 of shape (N, C, H, W) or "
            f"(H, W, C), C being {channels}"
        )
    yield from np.repeat(each, bands, axis=-1) if each.shape[-1] == 1 else each
