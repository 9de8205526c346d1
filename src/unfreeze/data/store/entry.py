"""The files of one source in the folder of stores: written by one process at a time, whole or not at all."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

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
_ENTRY = re.compile(r"[0-9a-f]{32}")
_SPARE_DISK_BYTES = 1 << 30


class NoRoomError(Exception):
    """Pixels do not fit where they should go; the message says why, and what to type."""


class StoreEntry:
    """The files of one source in the folder of stores: facts, and pixels in one or more frames."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._folder = folder / name
        self._lock = FileLock(f"{self._folder}.lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from building the same."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.warning(f"  {'':<13} waiting for another run, which decodes these images")
            self._lock.acquire()
        try:
            self._folder.mkdir(exist_ok=True)
            yield
        finally:
            self._lock.release()

    def facts(self, count: int) -> ImageFacts | None:
        """Return what is known of so many images, if it is, and if its file is whole."""
        try:
            facts = ImageFacts.load(self._folder / "facts.npz")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return facts if len(facts.sizes) == count else None

    def pixels(self, frame: Frame) -> Path:
        """Return the file of the images in a frame."""
        return self._folder / f"{frame.name}.npy"

    def keep(self, facts: ImageFacts) -> None:
        """Write facts; readers see all of them or none."""
        building = self._folder / f"building-{os.getpid()}.npz"
        facts.save(building)
        building.replace(self._folder / "facts.npz")

    @contextmanager
    def pixel_file(self, frame: Frame, shape: tuple[int, ...]) -> Iterator[Sink]:
        """Yield what writes images into the file; it takes its name when all are written."""
        building = self._folder / f"building-{os.getpid()}.npy"
        try:
            with building.open("wb") as file:
                header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                start = file.tell()
                file.truncate(start + shape[0] * frame.nbytes)

                def sink(first: int, images: NDArray[np.uint8]) -> None:
                    file.seek(start + first * frame.nbytes)
                    file.write(images.data)

                yield sink
                file.flush()
                os.fsync(file.fileno())
            building.replace(self.pixels(frame))
        finally:
            building.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what a killed process has left."""
        for left in self._folder.glob("building-*"):
            left.unlink(missing_ok=True)

    def touch(self) -> None:
        """Note that the entry was used, where that may be noted."""
        with suppress(OSError):
            os.utime(self._folder / "facts.npz")

    def make_room(self, nbytes: int, folder_gb: float) -> None:
        """Remove entries used longest ago until some bytes more fit.

        Raises:
            NoRoomError: If they can't be made to fit; nothing is removed then.
        """
        entries = [path for path in self.folder.iterdir() if _ENTRY.fullmatch(path.name) and not path.is_symlink()]
        sizes = {path: _folder_bytes(path) for path in entries if path.is_dir()}
        in_folder = folder_gb * 1e9 - sum(sizes.values())
        on_disk = shutil.disk_usage(self.folder).free - _SPARE_DISK_BYTES
        sizes.pop(self._folder, None)
        gigabytes = f"{nbytes / 1e9:.1f} GB of pixels"
        if nbytes > in_folder + sum(sizes.values()):
            raise NoRoomError(f"{gigabytes} are more than cache.gb={folder_gb:g} leaves; type a larger cache.gb")
        if nbytes > on_disk + sum(sizes.values()):
            raise NoRoomError(f"{gigabytes} do not fit on the disk of {self.folder}; type another cache.dir")
        room = min(in_folder, on_disk)
        for folder in sorted(sizes, key=_last_used):
            if room >= nbytes:
                return
            with _try_lock(folder) as is_free:
                if is_free:
                    shutil.rmtree(folder, ignore_errors=True)
                    room += sizes[folder]
        if room < nbytes:
            raise NoRoomError(f"{gigabytes} do not fit beside those that other runs build now; try again later")


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
    total = 0
    for file in folder.glob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _last_used(folder: Path) -> float:
    with suppress(OSError):
        return (folder / "facts.npz").stat().st_mtime
    return 0.0
