"""Files of one source in the cache folder, written atomically and by one process at a time."""

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
    """Files of one source: facts, and pixels in one or more frames.

    Args:
        entry: Entry of the cache folder that has the files.
    """

    entry: CacheEntry

    def read_facts(self, count: int) -> ImageFacts | None:
        """Return the stored facts of `count` images; None if there are none or the file is damaged."""
        try:
            facts = ImageFacts.load(self.entry.folder / "facts.npz")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return facts if len(facts.sizes) == count else None

    def pixels(self, frame: Frame) -> Path:
        """Return the path of the images in a frame."""
        return self.entry.folder / f"{frame.name}.npy"

    def write_facts(self, facts: ImageFacts) -> None:
        """Write the facts atomically."""
        with self.entry.write("facts.npz") as path:
            facts.save(path)

    def describe(self, source: str, count: int) -> None:
        """Write the name of the source, the number of images and the frames, for the listing of the cache."""
        frames = sorted(path.stem for path in self.entry.folder.glob("[!.]*.npy"))
        self.entry.describe({"source": source, "images": count, "frames": frames})

    @contextmanager
    def pixel_file(self, frame: Frame, shape: tuple[int, ...]) -> Iterator[Sink]:
        """Yield a function that writes images into the file, which appears under its name at the end."""
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
    """Return the cache key of images, which changes when any image changes."""
    return blake2b(f"{_LAYOUT} {PIL.__version__} {images.state()}".encode(), digest_size=16).hexdigest()
