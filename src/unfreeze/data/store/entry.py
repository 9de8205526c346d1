"""The files of one source in the folder of stores: written by one process at a time, whole or not at all."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from unfreeze.data.sources.images import Images
from unfreeze.data.store.facts import ImageFacts
from unfreeze.data.store.framing import Frame
from unfreeze.data.store.survey import Sink

log = logging.getLogger("unfreeze.data.store.entry")

_LAYOUT = 1
_SPARE_DISK_BYTES = 1 << 30


class StoreEntry:
    """The files of one source in the folder of stores: facts, and pixels in one or more frames."""

    def __init__(self, folder: Path, name: str) -> None:
        self._home = folder
        self._folder = folder / name
        self._lock = FileLock(f"{self._folder}.lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from building the same."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info(f"  {'':<13} waiting for another run, which decodes these images")
            self._lock.acquire()
        try:
            self._folder.mkdir(exist_ok=True)
            yield
        finally:
            self._lock.release()

    def facts(self) -> ImageFacts | None:
        """Return what is known of the images, if it is."""
        path = self._folder / "facts.npz"
        return ImageFacts.load(path) if path.is_file() else None

    def pixels(self, frame: Frame) -> Path:
        """Return the file of the images in a frame."""
        return self._folder / f"{frame.name}.npy"

    def keep(self, facts: ImageFacts) -> None:
        """Write facts; readers see all of them or none."""
        building = self._folder / f"building-{os.getpid()}.npz"
        facts.save(building)
        building.rename(self._folder / "facts.npz")

    @contextmanager
    def pixel_file(self, frame: Frame, shape: tuple[int, ...]) -> Iterator[Sink]:
        """Yield what writes images into the file; it takes its name when all are written."""
        building = self._folder / f"building-{os.getpid()}.npy"
        try:
            with building.open("wb") as file:
                header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.flush()
                start, fd = file.tell(), file.fileno()
                os.ftruncate(fd, start + shape[0] * frame.nbytes)

                def sink(first: int, images: NDArray[np.uint8]) -> None:
                    os.pwrite(fd, images.data, start + first * frame.nbytes)

                yield sink
            building.rename(self.pixels(frame))
        finally:
            building.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what a killed process has left."""
        for left in self._folder.glob("building-*"):
            left.unlink(missing_ok=True)

    def touch(self) -> None:
        """Note that the entry was used."""
        if (self._folder / "facts.npz").is_file():
            os.utime(self._folder / "facts.npz")

    def make_room(self, nbytes: int, folder_gb: float) -> str | None:
        """Remove entries used longest ago until some bytes more fit; return why they can't, if so."""
        others = [folder for folder in self._home.iterdir() if folder.is_dir() and folder != self._folder]
        sizes = {folder: _folder_bytes(folder) for folder in [*others, self._folder]}
        for folder in sorted(others, key=_last_used):
            if sum(sizes.values()) + nbytes <= folder_gb * 1e9:
                break
            with _try_lock(folder) as is_free:
                if is_free:
                    shutil.rmtree(folder, ignore_errors=True)
                    del sizes[folder]
        if sum(sizes.values()) + nbytes > folder_gb * 1e9:
            return (
                f"{nbytes / 1e9:.1f} GB of pixels are more than cache.gb={folder_gb:g} leaves; type a larger cache.gb"
            )
        free = shutil.disk_usage(self._home).free
        if nbytes + _SPARE_DISK_BYTES > free:
            return f"{nbytes / 1e9:.1f} GB of pixels do not fit on the disk of {self._home}; type another cache.dir"
        return None


def entry_name(images: Images) -> str:
    """Return the name that the files of some images have, another one where any image has changed."""
    return blake2b(f"{_LAYOUT} {PIL.__version__} {images.state()}".encode(), digest_size=16).hexdigest()


@contextmanager
def _try_lock(folder: Path) -> Iterator[bool]:
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.glob("*"))


def _last_used(folder: Path) -> float:
    facts = folder / "facts.npz"
    return facts.stat().st_mtime if facts.is_file() else 0.0
