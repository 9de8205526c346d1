"""The files of one source in the cache folder: written by one process at a time, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import PIL
from numpy.typing import NDArray

from unfreeze.cache.folder import CacheEntry
from unfreeze.data.sources.images import Images
from unfreeze.data.store.facts import ImageFacts
from unfreeze.data.store.framing import Frame
from unfreeze.data.store.survey import Sink

_LAYOUT = 1


@dataclass(frozen=True)
class StoreFiles:
    """The files of one source: facts, and pixels in one or more frames.

    Args:
        entry: Where they are.
    """

    entry: CacheEntry

    def facts(self, count: int) -> ImageFacts | None:
        """Return what is known of so many images, if it is, and if its file is whole."""
        try:
            facts = ImageFacts.load(self.entry.folder / "facts.npz")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return facts if len(facts.sizes) == count else None

    def pixels(self, frame: Frame) -> Path:
        """Return the file of the images in a frame."""
        return self.entry.folder / f"{frame.name}.npy"

    def keep(self, facts: ImageFacts) -> None:
        """Write facts; readers see all of them or none."""
        with self.entry.write("facts.npz") as path:
            facts.save(path)

    def describe(self, source: str, count: int) -> None:
        """Note whose images, and how many, for people."""
        frames = sorted(path.stem for path in self.entry.folder.glob("[!.]*.npy"))
        self.entry.describe({"source": source, "images": count, "frames": frames})

    @contextmanager
    def pixel_file(self, frame: Frame, shape: tuple[int, ...]) -> Iterator[Sink]:
        """Yield what writes images into the file; it takes its name when all are written."""
        with self.entry.write(f"{frame.name}.npy") as path, path.open("wb") as file:
            header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            file.truncate(start + shape[0] * frame.nbytes)

            def sink(first: int, images: NDArray[np.uint8]) -> None:
                file.seek(start + first * frame.nbytes)
                file.write(images.data)

            yield sink


def store_key(images: Images) -> str:
    """Return the key of some images' files, another one where any image has changed."""
    return blake2b(f"{_LAYOUT} {PIL.__version__} {images.state()}".encode(), digest_size=16).hexdigest()
