"""Images decoded once, on all cores, into one block of uint8."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unfreeze.data.sources import ImageSource
from unfreeze.errors import UnfreezeError

T = TypeVar("T")

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a source in memory.

    Args:
        images: uint8, shape (N, 3, H, W).
        digests: A hash of each image's content, shape (N,), 16 bytes each.
        fingerprint: Hash of contents, labels, class names and given splits, as hex.
    """

    images: Tensor
    digests: NDArray[np.void]
    fingerprint: str

    @property
    def nbytes(self) -> int:
        """The size of the pixels in bytes."""
        return self.images.nbytes


def build_store(
    source: ImageSource,
    *,
    resize_px: int,
    interpolation: str = "bilinear",
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageStore:
    """Decode a source.

    Images that all have one size whose shorter side is at most `resize_px` are kept as they are; others are
    resized to `resize_px` and cut to the square in the centre.

    Args:
        source: What to decode.
        resize_px: Shorter side that the backbone's preprocessing resizes to.
        interpolation: Of the resize, "bilinear" or "bicubic", as the backbone's preprocessing has it.
        workers: Threads; None for one per core.
        progress: Called with the number of images done, now and then.

    Raises:
        UnfreezeError: If files can't be read; it names all of them.
    """
    threads = workers or os.cpu_count() or 1
    count = len(source.images)
    with ThreadPoolExecutor(threads) as pool:
        try:
            sizes = _collect(pool, source, source.images.size_px, None)
        except UnfreezeError:
            # A header may be whole and the rest not: only decoding tells all that is wrong.
            _collect(pool, source, lambda index: source.images.read(index).size, progress)
            raise
        width, height = sizes[0]
        native = len(set(sizes)) == 1 and min(width, height) <= resize_px
        shape = (height, width) if native else (resize_px, resize_px)
        _check_fits(count * 3 * shape[0] * shape[1])
        images = torch.empty((count, 3, *shape), dtype=torch.uint8)
        pixels = images.numpy()

        def decode(index: int) -> bytes:
            image = source.images.read(index)
            if not native:
                image = _center_square(_resize_short(image, resize_px, _RESAMPLING[interpolation]), resize_px)
            pixels[index] = np.asarray(image).transpose(2, 0, 1)
            return source.images.digest(index)

        digests = _collect(pool, source, decode, progress)
    return ImageStore(
        images=images,
        digests=np.frombuffer(b"".join(digests), dtype="V16"),
        fingerprint=_fingerprint(source, digests),
    )


def _check_fits(nbytes: int) -> None:
    """Refuse what would be killed by the kernel half-way, where the kernel tells what it has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), nbytes)
    if nbytes > 0.8 * available:
        raise UnfreezeError(
            f"data: the decoded images would take {nbytes / 1e9:.1f} GB of the {available / 1e9:.1f} GB of memory that "
            "are free; type a smaller data.image_size, or point data.root at fewer images"
        )


def shared_images(store: ImageStore, first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """Return how many images of the second split are also, byte for byte, in the first."""
    known = set(store.digests[first].tolist())
    return sum(digest in known for digest in store.digests[second].tolist())


def _resize_short(image: Image.Image, resize_px: int, resampling: Image.Resampling) -> Image.Image:
    width, height = image.size
    scale = resize_px / min(width, height)
    size = (max(resize_px, int(width * scale)), max(resize_px, int(height * scale)))
    return image.resize(size, resampling)


def _center_square(image: Image.Image, side: int) -> Image.Image:
    # Rounded as torchvision's centre crop is, so that cutting twice shows what cutting once would.
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _collect(
    pool: ThreadPoolExecutor,
    source: ImageSource,
    work: Callable[[int], T],
    progress: Callable[[int], None] | None,
) -> list[T]:
    """Run some work for each image; report all images for which it fails in one error."""

    def attempt(index: int) -> T | str:
        try:
            return work(index)
        except _UNREADABLE as error:
            return f"{source.images.name(index)} ({_reason(error)})"

    results: list[T] = []
    unreadable: list[str] = []
    for done, outcome in enumerate(pool.map(attempt, range(len(source.images)), chunksize=16), start=1):
        if isinstance(outcome, str):
            unreadable.append(outcome)
        else:
            results.append(outcome)
        if progress is not None and (done % 256 == 0 or done == len(source.images)):
            progress(done)
    if unreadable:
        told = ", ".join(unreadable[:20]) + (f" and {len(unreadable) - 20} more" if len(unreadable) > 20 else "")
        raise UnfreezeError(
            f"data: {len(unreadable)} of {len(source.images)} images can't be read: {told}. Mend or remove them"
        )
    return results


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (str(error) or type(error).__name__).splitlines()[0]


def _fingerprint(source: ImageSource, digests: list[bytes]) -> str:
    total = blake2b(digest_size=16)
    total.update("\0".join(source.classes).encode())
    total.update(source.labels.tobytes())
    total.update("\0".join(source.splits.tolist()).encode())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()
