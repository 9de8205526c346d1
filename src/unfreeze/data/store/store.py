"""Images decoded once, on all cores, and kept as uint8: in memory, or in a file that later runs map."""

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
from unfreeze.system.cores import MOST_WORKERS, usable_cores
from unfreeze.system.memory import free_memory_bytes

log = logging.getLogger("unfreeze.data.store.store")

Place = Literal["auto", "ram", "disk", "off"]
OnError = Literal["raise", "skip"]

_PROBED = 16
_WORKERS_PAY_S = 2.0


@dataclass(frozen=True)
class StoreOptions:
    """Where decoded pixels are kept.

    Args:
        place: "ram": in this process, decoded anew by each run. "disk": in a file that is mapped into memory, reused by
            later runs and shared by parallel ones. "off": nowhere; worker processes decode each time. "auto": on disk
            where there is room, else in memory where they fit, else nowhere.
        memory_gb: The most memory that pixels may take, in 10^9 bytes; None for half of what is free.
        folder: The cache folder, where files go; None where none may be written.
        folder_gb: The most that all in the folder may take, in 10^9 bytes; what was used longest ago is removed first.
        workers: Processes that decode; 0 for this one alone, None for one per core that this process may use, up to 16.
    """

    place: Place = "ram"
    memory_gb: float | None = None
    folder: Path | None = None
    folder_gb: float = 50.0
    workers: int | None = None

    @property
    def memory_bytes(self) -> int:
        """The most memory that pixels may take."""
        return int(self.memory_gb * 1e9) if self.memory_gb is not None else free_memory_bytes() // 2

    @property
    def worker_count(self) -> int:
        """The number of processes that decode."""
        if self.workers is not None:
            return self.workers
        return min(MOST_WORKERS, usable_cores())


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a source in one shape.

    Args:
        pixels: Batches of them by index.
        facts: What decoding has found out.
        frame: Their shape.
        fingerprint: Hash of contents, labels, class names and given splits, as hex.
    """

    pixels: Pixels
    facts: ImageFacts
    frame: Frame
    fingerprint: str

    def read(self, indices: Indices) -> Tensor:
        """Return some images, uint8, shape (n, C, H, W)."""
        return next(self.pixels.batches([np.asarray(indices)]))


def build_store(
    source: ImageSource,
    resize: Resize,
    *,
    options: StoreOptions | None = None,
    on_error: OnError = "raise",
    progress: Progress | None = None,
) -> ImageStore:
    """Decode all images of a source, or open what an earlier run has decoded.

    Images that all have one size whose shorter side is at most `resize.px` are kept as they are; others are resized
    to it and cut to the square in the centre, or squashed into that.

    Args:
        source: What to decode.
        resize: As the backbone's preprocessing has it.
        options: Where the pixels are kept.
        on_error: "raise" to refuse a source with images that can't be read, "skip" to leave them to the caller.
        progress: Called with the number of images done, now and then.

    Raises:
        UnfreezeError: If files can't be read; it names all of them. If the pixels fit nowhere they may go.
    """
    options = options or StoreOptions()
    build = _Build(source.name, source.images, resize, options, on_error, progress)
    with quiet_decoders():
        facts, frame, pixels = build.run()
    return ImageStore(pixels=pixels, facts=facts, frame=frame, fingerprint=_fingerprint(source, facts))


def shared_images(store: ImageStore, first: Indices, second: Indices) -> int:
    """Return how many images of the second split are also, byte for byte, in the first."""
    return int(np.isin(store.facts.digests[second], store.facts.digests[first]).sum())


def contradicting_images(store: ImageStore, indices: Indices, labels: NDArray[np.int64]) -> int:
    """Return how many of some images have an equal one, byte for byte, with other labels.

    Args:
        store: Of all images of a source.
        indices: Which images.
        labels: Of all images of the source, shape (N,) or (N, T).
    """
    _, contents = np.unique(store.facts.digests[indices], return_inverse=True)
    _, answers = np.unique(labels[indices], axis=0, return_inverse=True)
    kinds = np.unique(np.stack([contents, answers.reshape(-1)]), axis=1)[0]
    return int(np.isin(contents, np.flatnonzero(np.bincount(kinds) > 1)).sum())


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
            log.warning(f"  {'':<13} nothing is kept for the next run: can't write to {folder} ({error.strerror})")
            return self._in_memory() if place == "auto" else self._streamed()
        cache = CacheFolder(folder, self.options.folder_gb)
        return self._with_files(StoreFiles(cache.entry("decoded", store_key(self.images))))

    def _with_files(self, files: StoreFiles) -> tuple[ImageFacts, Frame, Pixels]:
        """Open what is there; build what is not, which only one process does at a time."""
        try:
            found = self._open(files)
            if found is None:
                with files.entry.locked():
                    found = self._open(files) or self._fill(files)
        except NoRoomError as error:
            return self._without_file(files, str(error))
        except OSError as error:
            return self._without_file(files, f"can't write below {files.entry.cache.root} ({error.strerror})")
        files.entry.touch()
        return found

    def _without_file(self, files: StoreFiles, problem: str) -> tuple[ImageFacts, Frame, Pixels]:
        if self.options.place == "disk":
            raise UnfreezeError(f"data.store: {problem}") from None
        log.warning(f"  {'':<13} nothing is kept for the next run: {problem}")
        facts = files.facts(len(self.images))
        frame = self._frame_for(facts) if facts is not None else self._guess_frame()
        if self.options.place == "auto" and len(self.images) * frame.nbytes <= self.options.memory_bytes:
            return self._in_memory()
        return self._streamed() if facts is None else (facts, frame, self._stream(frame))

    def _open(self, files: StoreFiles) -> tuple[ImageFacts, Frame, Pixels] | None:
        facts = files.facts(len(self.images))
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
        facts = files.facts(len(self.images))
        files.entry.clean()
        if self.options.place == "off":
            facts, frame, pixels = self._streamed()
            files.keep(facts)
        else:
            frame = self._frame_for(facts) if facts is not None else self._guess_frame()
            facts, frame = self._retry(frame, lambda frame: self._decode_to_file(files, frame))
            pixels = self._map(files, frame)
        files.describe(self.name, len(self.images))
        return facts, frame, pixels

    def _in_memory(self) -> tuple[ImageFacts, Frame, Pixels]:
        held: dict[Frame, NDArray[np.uint8]] = {}

        def decode(frame: Frame) -> ImageFacts:
            held.clear()
            if isinstance(self.images, ArrayImages) and frame.resize is None:
                held[frame] = self.images.pixels
                return self._decode(frame, None)
            _check_fits(len(self.images) * frame.nbytes, self.options.memory_bytes)
            pixels = held[frame] = np.zeros(self._shape(frame), dtype=np.uint8)

            def sink(first: int, images: NDArray[np.uint8]) -> None:
                pixels[first : first + len(images)] = images

            return self._decode(frame, sink)

        facts, frame = self._retry(self._guess_frame(), decode)
        return facts, frame, ResidentPixels(torch.from_numpy(np.ascontiguousarray(held[frame])))

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
        """The sizes of a few images, far apart, and the seconds it takes to read one."""
        sizes, started = set(), time.perf_counter()
        probed = np.linspace(0, len(self.images) - 1, min(len(self.images), _PROBED)).astype(int).tolist()
        for index in probed:
            try:
                sizes.add(self.images.read(index).image.size)
            except UnreadableImageError:
                continue
        return sizes, (time.perf_counter() - started) / len(probed)

    def _choose_frame(self, uniform_size: tuple[int, int] | None) -> Frame:
        return Frame.choose(uniform_size, self.resize, self.images.bands)

    def _guess_frame(self) -> Frame:
        sizes, _ = self._probe
        uniform = next(iter(sizes)) if len(sizes) == 1 else None
        return self._choose_frame(uniform)

    def _retry(self, frame: Frame, decode: Callable[[Frame], ImageFacts]) -> tuple[ImageFacts, Frame]:
        """Decode into a guessed frame, and into the frame for all sizes where the guess was wrong."""
        try:
            return decode(frame), frame
        except OtherSizeError:
            frame = self._choose_frame(None)
        # Not before the exception is gone, which holds on to the first attempt's workers.
        return decode(frame), frame

    def _decode_to_file(self, files: StoreFiles, frame: Frame) -> ImageFacts:
        files.entry.make_room(len(self.images) * frame.nbytes)
        with files.pixel_file(frame, self._shape(frame)) as sink:
            facts = self._decode(frame, sink)
        files.keep(facts)
        return facts

    def _decode(self, frame: Frame, sink: Sink | None) -> ImageFacts:
        facts = survey_images(self.images, frame=frame, sink=sink, workers=self._workers(), progress=self.progress)
        self._check_readable(facts)
        return facts

    def _workers(self) -> int:
        """Return how many processes decode: none where they would not be up before this one is done."""
        _, seconds = self._probe
        pays = seconds * len(self.images) > _WORKERS_PAY_S
        return self.options.worker_count if pays and self.options.worker_count > 1 else 0

    def _check_readable(self, facts: ImageFacts) -> None:
        if not facts.unreadable:
            return
        every = len(facts.unreadable) == len(self.images)
        if every and isinstance(self.images, FileImages):
            self.images.check_some_are_there()
        if self.on_error == "raise" or every:
            hint = "" if every else ", or type data.on_error=skip to leave them out"
            # Where nothing can be read, it is the place that is wrong, and a few names tell it.
            told = sorted(facts.unreadable.items())[: 10 if every else None]
            listed = ", ".join(f"{self.images.name(index)} ({reason})" for index, reason in told)
            listed += f" and {len(facts.unreadable) - len(told):,} more" if len(told) < len(facts.unreadable) else ""
            raise UnfreezeError(
                f"data: {len(facts.unreadable):,} of {len(self.images):,} images can't be read; mend or remove "
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
