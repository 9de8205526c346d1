"""Images decoded once, on all cores, and stored as uint8: in memory, or in a file that later runs map."""

import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.cache.folder import CacheFolder, NoRoomError
from unfreeze.data.sources.decoding import UnreadableImageError, quiet_decoders
from unfreeze.data.sources.images import ArrayImages, FileImages, Images, Indices
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.store.entry import StoreFiles, store_key
from unfreeze.data.store.facts import ImageFacts
from unfreeze.data.store.framing import Frame, Resize
from unfreeze.data.store.pixels import MappedPixels, Pixels, ResidentPixels, StreamedPixels
from unfreeze.data.store.survey import OtherSizeError, Progress, Sink, survey_images
from unfreeze.errors import UnfreezeError
from unfreeze.system.cores import MAX_WORKERS, usable_cores
from unfreeze.system.memory import free_memory_bytes

log = logging.getLogger("unfreeze.data.store.store")

Place = Literal["auto", "ram", "disk", "off"]
OnError = Literal["raise", "skip"]

_PROBED = 16
_WORKERS_PAY_S = 2.0


@dataclass(frozen=True)
class StoreOptions:
    """Storage of decoded pixels.

    Args:
        place: "ram": in this process, decoded anew by each run. "disk": in a memory-mapped file, reused by later runs
            and shared by parallel ones. "off": nowhere; worker processes decode on demand. "auto": on disk if there is
            room, else in memory if they fit, else nowhere.
        memory_gb: Memory limit of the pixels in 10^9 bytes; None for half of the free memory.
        folder: Cache folder of the files; None to write no files.
        folder_gb: Size limit of the whole folder in 10^9 bytes; the least recently used files are removed first.
        workers: Number of decoding processes; 0 to decode in this process, None for one per available core, up to 16.
    """

    place: Place = "ram"
    memory_gb: float | None = None
    folder: Path | None = None
    folder_gb: float = 50.0
    workers: int | None = None

    @property
    def memory_bytes(self) -> int:
        """Memory limit of the pixels in bytes."""
        return int(self.memory_gb * 1e9) if self.memory_gb is not None else free_memory_bytes() // 2

    @property
    def worker_count(self) -> int:
        """Number of decoding processes."""
        if self.workers is not None:
            return self.workers
        return min(MAX_WORKERS, usable_cores())


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a source in one shape.

    Args:
        pixels: Pixels of the images in batches.
        facts: Facts about the images.
        frame: Shape of the images.
        fingerprint: Hash of contents, labels, class names and existing splits, as hex.
    """

    pixels: Pixels
    facts: ImageFacts
    frame: Frame
    fingerprint: str

    def read(self, indices: Indices) -> Tensor:
        """Return the images of some indices, uint8, shape (n, C, H, W)."""
        return next(self.pixels.batches([np.asarray(indices)]))


def build_store(
    source: ImageSource,
    resize: Resize,
    *,
    options: StoreOptions | None = None,
    on_error: OnError = "raise",
    progress: Progress | None = None,
) -> ImageStore:
    """Decode all images of a source, or open those that an earlier run has decoded.

    Images that all have one size with a shorter side of at most `resize.px` stay unchanged. Others are resized to it
    and cropped to the central square, or squashed into it.

    Args:
        source: Images to decode.
        resize: Resize of the backbone's preprocessing.
        options: Storage of the pixels; None for the defaults.
        on_error: "raise" to refuse unreadable images, "skip" to leave them to the caller.
        progress: Callback with the number of decoded images; None for none.

    Raises:
        UnfreezeError: If files can't be read, with their names, or if there is no room for the pixels.
    """
    options = options or StoreOptions()
    build = _Build(source.name, source.images, resize, options, on_error, progress)
    with quiet_decoders():
        facts, frame, pixels = build.run()
    return ImageStore(pixels=pixels, facts=facts, frame=frame, fingerprint=_fingerprint(source, facts))


def shared_images(store: ImageStore, first: Indices, second: Indices) -> int:
    """Return the number of images of the second split with an equal image, byte for byte, in the first."""
    return int(np.isin(store.facts.digests[second], store.facts.digests[first]).sum())


def contradicting_images(store: ImageStore, indices: Indices, labels: NDArray[np.int64]) -> int:
    """Return the number of images that have an equal image, byte for byte, with different labels.

    Args:
        store: Store of all images of a source.
        indices: Indices of the images to compare.
        labels: Labels of all images of the source, shape (N,) or (N, T).
    """
    _, contents = np.unique(store.facts.digests[indices], return_inverse=True)
    _, targets = np.unique(labels[indices], axis=0, return_inverse=True)
    pairs = np.unique(np.stack([contents, targets.reshape(-1)]), axis=1)[0]
    return int(np.isin(contents, np.flatnonzero(np.bincount(pairs) > 1)).sum())


@dataclass(frozen=True, eq=False)
class _Build:
    name: str
    images: Images
    resize: Resize
    options: StoreOptions
    on_error: OnError
    progress: Progress | None

    def run(self) -> tuple[ImageFacts, Frame, Pixels]:
        place, folder = self.options.place, self.options.folder
        if place == "disk" and folder is None:
            raise UnfreezeError("data.store: 'disk' needs a folder for its files; type cache.dir=...")
        if place == "ram" or folder is None or (place == "auto" and isinstance(self.images, ArrayImages)):
            return self._in_memory() if place in ("ram", "auto") else self._streamed()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if place == "disk":
                raise UnfreezeError(
                    f"cache.dir: can't write to {str(folder)!r} ({error.strerror}); type another cache.dir=..."
                ) from None
            log.warning(f"  {'':<13} not cached for the next run: can't write to {folder} ({error.strerror})")
            return self._in_memory() if place == "auto" else self._streamed()
        cache = CacheFolder(folder, self.options.folder_gb)
        return self._with_files(StoreFiles(cache.entry("decoded", store_key(self.images))))

    def _with_files(self, files: StoreFiles) -> tuple[ImageFacts, Frame, Pixels]:
        """Open the stored images, or decode them; only one process decodes at a time."""
        try:
            opened = self._open(files)
            if opened is None:
                with files.entry.locked():
                    opened = self._open(files) or self._fill(files)
        except NoRoomError as error:
            return self._without_file(files, str(error))
        except OSError as error:
            return self._without_file(files, f"can't write below {files.entry.cache.root} ({error.strerror})")
        files.entry.touch()
        return opened

    def _without_file(self, files: StoreFiles, problem: str) -> tuple[ImageFacts, Frame, Pixels]:
        if self.options.place == "disk":
            raise UnfreezeError(f"data.store: {problem}") from None
        log.warning(f"  {'':<13} not cached for the next run: {problem}")
        facts = files.read_facts(len(self.images))
        frame = self._frame_for(facts) if facts is not None else self._guess_frame()
        if self.options.place == "auto" and len(self.images) * frame.nbytes <= self.options.memory_bytes:
            return self._in_memory()
        return self._streamed() if facts is None else (facts, frame, self._stream(frame))

    def _open(self, files: StoreFiles) -> tuple[ImageFacts, Frame, Pixels] | None:
        facts = files.read_facts(len(self.images))
        if facts is None:
            return None
        self._check_readable(facts)
        frame = self._frame_for(facts)
        if self.options.place == "off":
            return facts, frame, self._stream(frame)
        try:
            return facts, frame, self._map(files, frame)
        except (OSError, ValueError):
            return None

    def _fill(self, files: StoreFiles) -> tuple[ImageFacts, Frame, Pixels]:
        facts = files.read_facts(len(self.images))
        files.entry.clean()
        if self.options.place == "off":
            facts, frame, pixels = self._streamed()
            files.write_facts(facts)
        else:
            frame = self._frame_for(facts) if facts is not None else self._guess_frame()
            facts, frame = self._retry(frame, lambda frame: self._decode_to_file(files, frame))
            pixels = self._map(files, frame)
        files.describe(self.name, len(self.images))
        return facts, frame, pixels

    def _in_memory(self) -> tuple[ImageFacts, Frame, Pixels]:
        decoded: dict[Frame, NDArray[np.uint8]] = {}

        def decode(frame: Frame) -> ImageFacts:
            decoded.clear()
            if isinstance(self.images, ArrayImages) and frame.resize is None:
                decoded[frame] = self.images.pixels
                return self._decode(frame, None)
            _check_fits(len(self.images) * frame.nbytes, self.options.memory_bytes)
            pixels = decoded[frame] = np.zeros(self._shape(frame), dtype=np.uint8)

            def sink(first: int, images: NDArray[np.uint8]) -> None:
                pixels[first : first + len(images)] = images

            return self._decode(frame, sink)

        facts, frame = self._retry(self._guess_frame(), decode)
        return facts, frame, ResidentPixels(torch.from_numpy(np.ascontiguousarray(decoded[frame])))

    def _streamed(self) -> tuple[ImageFacts, Frame, Pixels]:
        facts, frame = self._retry(self._guess_frame(), lambda frame: self._decode(frame, None))
        return facts, frame, self._stream(frame)

    def _stream(self, frame: Frame) -> StreamedPixels:
        return StreamedPixels(self.images, frame, workers=self.options.worker_count)

    def _map(self, files: StoreFiles, frame: Frame) -> MappedPixels:
        files.entry.use()
        try:
            path, shape = files.pixels(frame), self._shape(frame)
            pixels = MappedPixels(path, shape=shape, resident_bytes=self.options.memory_bytes)
        except BaseException:
            files.entry.release()
            raise
        weakref.finalize(pixels, files.entry.release)
        return pixels

    def _shape(self, frame: Frame) -> tuple[int, ...]:
        return len(self.images), frame.height_px, frame.width_px, frame.bands

    def _frame_for(self, facts: ImageFacts) -> Frame:
        return self._choose_frame(facts.uniform_size())

    @cached_property
    def _probe(self) -> tuple[set[tuple[int, int]], float]:
        """Sizes of a few evenly spaced images, and the mean time to read one in seconds."""
        sizes, started = set(), time.perf_counter()
        indices = np.linspace(0, len(self.images) - 1, min(len(self.images), _PROBED)).astype(int).tolist()
        for index in indices:
            try:
                sizes.add(self.images.read(index).image.size)
            except UnreadableImageError:
                continue
        return sizes, (time.perf_counter() - started) / len(indices)

    def _choose_frame(self, uniform_size: tuple[int, int] | None) -> Frame:
        return Frame.choose(uniform_size, self.resize, self.images.bands)

    def _guess_frame(self) -> Frame:
        sizes, _ = self._probe
        uniform = next(iter(sizes)) if len(sizes) == 1 else None
        return self._choose_frame(uniform)

    def _retry(self, frame: Frame, decode: Callable[[Frame], ImageFacts]) -> tuple[ImageFacts, Frame]:
        """Decode into a guessed frame, or into the frame for all sizes if the guess was wrong."""
        try:
            return decode(frame), frame
        except OtherSizeError:
            frame = self._choose_frame(None)
        # Outside the except clause: the exception references the workers of the first attempt.
        return decode(frame), frame

    def _decode_to_file(self, files: StoreFiles, frame: Frame) -> ImageFacts:
        files.entry.make_room(len(self.images) * frame.nbytes)
        with files.pixel_file(frame, self._shape(frame)) as sink:
            facts = self._decode(frame, sink)
        files.write_facts(facts)
        return facts

    def _decode(self, frame: Frame, sink: Sink | None) -> ImageFacts:
        facts = survey_images(self.images, frame=frame, sink=sink, workers=self._workers(), progress=self.progress)
        self._check_readable(facts)
        return facts

    def _workers(self) -> int:
        """Return the number of decoding processes: none if starting them would take longer than decoding."""
        _, seconds = self._probe
        pays = seconds * len(self.images) > _WORKERS_PAY_S
        return self.options.worker_count if pays and self.options.worker_count > 1 else 0

    def _check_readable(self, facts: ImageFacts) -> None:
        if not facts.unreadable:
            return
        is_every = len(facts.unreadable) == len(self.images)
        if is_every and isinstance(self.images, FileImages):
            self.images.check_any_exists()
        if self.on_error == "raise" or is_every:
            hint = "" if is_every else ", or type data.on_error=skip to leave them out"
            # If no image can be read, the folder is wrong, and a few names are enough.
            shown = sorted(facts.unreadable.items())[: 10 if is_every else None]
            listed = ", ".join(f"{self.images.name(index)} ({reason})" for index, reason in shown)
            listed += f" and {len(facts.unreadable) - len(shown):,} more" if len(shown) < len(facts.unreadable) else ""
            raise UnfreezeError(
                f"data: {len(facts.unreadable):,} of {len(self.images):,} images can't be read; fix or remove "
                f"them{hint}: {listed}"
            )


def _check_fits(nbytes: int, memory_bytes: int) -> None:
    if nbytes > memory_bytes:
        raise UnfreezeError(
            f"data.store: the decoded images take {nbytes / 1e9:.1f} GB and may take {memory_bytes / 1e9:.1f} GB of "
            "memory; type data.store=disk, data.store=off, a larger data.store_gb or a smaller data.image_size"
        )


def _fingerprint(source: ImageSource, facts: ImageFacts) -> str:
    total = blake2b(digest_size=16)
    total.update("\0".join(source.classes).encode("utf-8", "surrogateescape"))
    total.update(source.labels.tobytes())
    total.update("\0".join(source.splits.tolist()).encode())
    total.update(facts.digests.tobytes())
    return total.hexdigest()
