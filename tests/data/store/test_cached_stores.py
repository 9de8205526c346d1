"""Image stores on disk: reuse, locking, atomic writes and size limits."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.photos import save_photo
from unfreeze.cache.folder import CacheFolder
from unfreeze.data.sources.decoding import DecodedImage
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.sources.images import FileImages
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.pixels import MappedPixels
from unfreeze.data.store.store import ImageStore, StoreOptions, build_store
from unfreeze.errors import UnfreezeError

MakeFolder = Callable[..., Path]
CONTEXT = multiprocessing.get_context("fork")
FRESH = multiprocessing.get_context("forkserver")
SMALL = Resize(16)


@dataclass(frozen=True, eq=False)
class CountedImages(FileImages):
    """Files that count how often they are read, over all processes."""

    count: "Synchronized[int] | None" = None
    pause_s: float = 0.0

    def read(self, index: int) -> DecodedImage:
        assert self.count is not None
        with self.count.get_lock():
            self.count.value += 1
        time.sleep(self.pause_s)
        return super().read(index)


def counted(root: Path, *, pause_s: float = 0.0) -> tuple[ImageSource, "Synchronized[int]"]:
    source = folder_source(root)
    count = CONTEXT.Value("i", 0)
    images = source.images
    assert isinstance(images, FileImages)
    counting = CountedImages(images.root, images.paths, count=count, pause_s=pause_s)
    return ImageSource(source.name, source.classes, counting, source.labels, source.splits), count


def on_disk(source: ImageSource, folder: Path, resize: Resize = SMALL, **options: object) -> ImageStore:
    options_on_disk = StoreOptions(place="disk", folder=folder, workers=1, **options)  # type: ignore[arg-type]
    return build_store(source, resize, options=options_on_disk)


def everything(store: ImageStore) -> torch.Tensor:
    return store.read(np.arange(len(store.facts.digests)))


@pytest.mark.parametrize("size", [(12, 10), (40, 30)])
def test_the_next_run_reads_no_file_again(photo_folder: MakeFolder, tmp_path: Path, size: tuple[int, int]) -> None:
    source, count = counted(photo_folder({"a": 20, "b": 20}, size=size))
    first = on_disk(source, tmp_path / "stores")
    assert count.value >= 40
    count.value = 0
    second = on_disk(source, tmp_path / "stores")
    assert count.value == 0
    assert first.fingerprint == second.fingerprint
    assert torch.equal(everything(first), everything(second))
    assert np.array_equal(first.facts.sizes, second.facts.sizes)
    assert second.facts.kinds == ["PNG RGB"]


def test_all_places_give_the_same_images(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 10, "b": 10}, size=(40, 30))
    save_photo(root / "a" / "other.png", size=(9, 70))
    stores = [
        build_store(
            folder_source(root),
            Resize(16),
            options=StoreOptions(place=place, folder=tmp_path / "stores", workers=2),  # type: ignore[arg-type]
        )
        for place in ("ram", "disk", "off", "auto")
    ]
    for store in stores[1:]:
        assert torch.equal(everything(store), everything(stores[0]))
        assert store.fingerprint == stores[0].fingerprint
    chunks = [np.array([20, 3]), np.array([0]), np.array([7, 7, 19])]
    ram, disk, off, _ = ([batch.clone() for batch in store.pixels.batches(chunks)] for store in stores)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(ram, disk, off, strict=True))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in ram + disk + off)


def test_a_changed_file_is_decoded_anew(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 3, "b": 3})
    before = on_disk(folder_source(root), tmp_path / "stores")
    save_photo(root / "a" / "0.png", seed="another")
    after = on_disk(folder_source(root), tmp_path / "stores")
    assert not torch.equal(everything(before)[0], everything(after)[0])
    assert before.fingerprint != after.fingerprint


def test_images_of_one_size_are_kept_once_for_all_backbones(photo_folder: MakeFolder, tmp_path: Path) -> None:
    source, count = counted(photo_folder({"a": 3, "b": 3}))
    on_disk(source, tmp_path / "stores", Resize(32))
    count.value = 0
    on_disk(source, tmp_path / "stores", Resize(64))
    assert count.value == 0
    assert on_disk(source, tmp_path / "stores", Resize(8)).frame.height_px == 8
    assert count.value >= 6


def test_one_image_of_another_size_late_in_the_source_changes_the_frame(
    photo_folder: MakeFolder, tmp_path: Path
) -> None:
    root = photo_folder({"a": 200, "b": 3})
    save_photo(root / "a" / "1234.png", size=(11, 10))
    for place in ("ram", "disk", "off"):
        options = StoreOptions(place=place, folder=tmp_path / place)  # type: ignore[arg-type]
        store = build_store(folder_source(root), Resize(16), options=options)
        assert (store.frame.height_px, store.frame.width_px, store.frame.resize) == (16, 16, Resize(16))
        assert everything(store).shape == (204, 3, 16, 16)


def _build(root: Path, folder: Path, count: "Synchronized[int]") -> None:
    source = folder_source(root)
    images = source.images
    assert isinstance(images, FileImages)
    counting = CountedImages(images.root, images.paths, count=count, pause_s=0.002)
    on_disk(ImageSource(source.name, source.classes, counting, source.labels, source.splits), folder)


def test_parallel_runs_build_it_once(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 60, "b": 60})
    count = CONTEXT.Value("i", 0)
    jobs = [CONTEXT.Process(target=_build, args=(root, tmp_path / "stores", count)) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    # One build, and a few images to guess from.
    assert 120 <= count.value <= 120 + 20


def test_a_build_that_was_killed_is_never_read(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 60, "b": 60})
    count = CONTEXT.Value("i", 0)
    job = CONTEXT.Process(target=_build, args=(root, tmp_path / "stores", count))
    job.start()
    while count.value < 80 and job.is_alive():
        time.sleep(0.002)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    assert list((tmp_path / "stores").rglob(".building-*"))
    source = folder_source(root)
    store = on_disk(source, tmp_path / "stores")
    assert torch.equal(everything(store), everything(build_store(source, Resize(16))))
    assert not list((tmp_path / "stores").rglob(".building-*"))


def test_what_was_used_longest_ago_makes_room(photo_folder: MakeFolder, tmp_path: Path) -> None:
    sources = [folder_source(photo_folder({"a": 30, "b": 30}, name=f"set{n}", size=(40, 40))) for n in range(3)]
    stores = tmp_path / "stores"
    one_gb = 60 * 40 * 40 * 3 / 1e9
    for source in sources[:2]:
        on_disk(source, stores, Resize(40), folder_gb=2.5 * one_gb)
    time.sleep(0.05)  # file systems tell times no finer than that
    on_disk(sources[0], stores, Resize(40))  # used again
    on_disk(sources[2], stores, Resize(40), folder_gb=2.5 * one_gb)
    left = [len(list(folder.glob("*.npy"))) for folder in (stores / "decoded").iterdir() if folder.is_dir()]
    assert left == [1, 1]
    counting, count = counted(Path(str(sources[0].images.root)))  # type: ignore[attr-defined]
    on_disk(counting, stores, Resize(40))
    assert count.value == 0


def test_what_a_run_maps_makes_no_room(photo_folder: MakeFolder, tmp_path: Path) -> None:
    mapped, idle, new = (
        folder_source(photo_folder({"a": 30, "b": 30}, name=f"set{n}", size=(40, 40))) for n in range(3)
    )
    stores = tmp_path / "stores"
    one_gb = 60 * 40 * 40 * 3 / 1e9
    store = on_disk(mapped, stores, Resize(40))
    pixels = next((stores / "decoded").rglob("*.npy"))
    time.sleep(0.05)
    on_disk(idle, stores, Resize(40))
    with pytest.raises(UnfreezeError, match=r"288\.0 kB of pixels are more than .* leaves beside 29\d\.\d kB in use"):
        on_disk(new, stores, Resize(40), folder_gb=1.5 * one_gb)
    assert len(list((stores / "decoded").rglob("*.npy"))) == 2, "nothing is removed for what does not fit anyway"
    on_disk(new, stores, Resize(40), folder_gb=2.5 * one_gb)
    assert pixels.is_file()
    assert len(list((stores / "decoded").rglob("*.npy"))) == 2
    assert everything(store).shape == (60, 3, 40, 40)
    del store
    on_disk(idle, stores, Resize(40), folder_gb=1.5 * one_gb)
    assert not pixels.exists()


def test_an_entry_says_what_it_holds(photo_folder: MakeFolder, tmp_path: Path) -> None:
    source = folder_source(photo_folder({"a": 3, "b": 3}))
    on_disk(source, tmp_path / "stores")
    on_disk(source, tmp_path / "stores", Resize(8))
    (item,) = CacheFolder(tmp_path / "stores", gb=1).entries()
    created = item.meta.pop("created")
    assert item.meta == {"source": "photos", "images": 6, "frames": ["12x10-native", "8x8-bilinear-8"]}
    assert created.startswith("20")


def test_what_can_not_be_kept_is_refused_or_done_without(photo_folder: MakeFolder, tmp_path: Path) -> None:
    source = folder_source(photo_folder({"a": 30, "b": 30}, size=(40, 40)))
    with pytest.raises(UnfreezeError, match=r"data\.store: .* more than cache\.gb=1e-06 leaves"):
        on_disk(source, tmp_path / "stores", Resize(40), folder_gb=1e-6)
    tight = StoreOptions(place="auto", folder=tmp_path / "stores", folder_gb=1e-6)
    assert build_store(source, Resize(40), options=tight).pixels.place == "in RAM"
    no_memory = StoreOptions(place="auto", folder=tmp_path / "stores", folder_gb=1e-6, memory_gb=1e-6)
    assert build_store(source, Resize(40), options=no_memory).pixels.place == "streamed from the files"
    with pytest.raises(UnfreezeError, match=r"data\.store: the decoded images take 0\.0 GB and may take 0\.0 GB"):
        build_store(source, Resize(40), options=StoreOptions(place="ram", memory_gb=1e-6))
    (tmp_path / "file").touch()
    with pytest.raises(UnfreezeError, match=r"cache\.dir: can't write to .*file/below"):
        on_disk(source, tmp_path / "file" / "below")


def _resident_bytes() -> int:
    """Return the memory of this process, the pages of mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_pages_of_a_mapped_file_stay_below_the_cap(tmp_path: Path) -> None:
    shape = (4000, 96, 96, 3)
    path = tmp_path / "pixels.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    cap = 16 << 20
    pixels = MappedPixels(path, shape=shape, resident_bytes=cap)
    assert pixels.nbytes > 6 * cap
    assert pixels.place == "mapped from disk"
    order = np.random.default_rng(0).permutation(shape[0])
    before, peak = _resident_bytes(), 0
    for _ in pixels.batches(np.array_split(order, 80)):
        peak = max(peak, _resident_bytes())
    assert peak - before < cap + (4 << 20)


def test_streaming_can_be_left_and_begun_again(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"a": 20, "b": 20}))
    pixels = build_store(source, Resize(16), options=StoreOptions(place="off", workers=2)).pixels
    chunks = np.array_split(np.arange(40), 10)
    first = next(pixels.batches(chunks)).clone()
    again = [batch.clone() for batch in pixels.batches(chunks)]
    assert torch.equal(first, again[0])
    assert len(again) == 10
    rest = [batch.clone() for batch in pixels.batches(chunks[6:])]
    assert all(torch.equal(a, b) for a, b in zip(rest, again[6:], strict=True))


def test_two_may_stream_at_a_time(photo_folder: MakeFolder) -> None:
    source = folder_source(photo_folder({"a": 20, "b": 20}))
    pixels = build_store(source, Resize(16), options=StoreOptions(place="off", workers=1)).pixels
    chunks = np.array_split(np.arange(40), 10)
    whole = [batch.clone() for batch in pixels.batches(chunks)]
    training = pixels.batches(chunks)
    seen = [next(training).clone() for _ in range(4)]
    validation = pixels.batches(chunks[5:])
    assert torch.equal(next(validation), whole[5])
    seen += [batch.clone() for batch in training]
    assert all(torch.equal(a, b) for a, b in zip(seen, whole, strict=True))
    assert torch.equal(next(validation), whole[6])


def test_a_file_that_is_removed_while_it_is_streamed_is_reported(photo_folder: MakeFolder) -> None:
    root = photo_folder({"a": 3, "b": 3})
    pixels = build_store(folder_source(root), Resize(16), options=StoreOptions(place="off", workers=0)).pixels
    save_photo(root / "a" / "1.png", size=(5, 5))
    with pytest.raises(UnfreezeError, match="another size than when the run began"):
        list(pixels.batches([np.arange(6)]))
    (root / "a" / "1.png").write_bytes(b"")
    with pytest.raises(UnfreezeError, match=r"a/1\.png can no longer be read \(empty file\)"):
        list(pixels.batches([np.arange(6)]))


@pytest.mark.parametrize("damage", ["facts emptied", "pixels cut", "pixels of another shape"])
def test_a_damaged_entry_is_built_anew(photo_folder: MakeFolder, tmp_path: Path, damage: str) -> None:
    source = folder_source(photo_folder({"a": 3, "b": 3}))
    whole = everything(on_disk(source, tmp_path / "stores")).clone()
    facts, pixels = (next((tmp_path / "stores").rglob(name)) for name in ("facts.npz", "*.npy"))
    match damage:
        case "facts emptied":
            facts.write_bytes(b"")
        case "pixels cut":
            pixels.write_bytes(pixels.read_bytes()[:-7])
        case _:
            np.save(pixels, np.zeros((5, 10, 12, 3), dtype=np.uint8))
    assert torch.equal(everything(on_disk(source, tmp_path / "stores")), whole)


def test_nothing_is_removed_for_what_does_not_fit_anyway(photo_folder: MakeFolder, tmp_path: Path) -> None:
    small = folder_source(photo_folder({"a": 3, "b": 3}, name="small"))
    large = folder_source(photo_folder({"a": 60, "b": 60}, name="large", size=(40, 40)))
    (tmp_path / "stores" / "holiday").mkdir(parents=True)
    save_photo(tmp_path / "stores" / "holiday" / "0.png")
    on_disk(small, tmp_path / "stores")
    before = sorted((tmp_path / "stores").rglob("*.npy"))
    tight = StoreOptions(place="auto", folder=tmp_path / "stores", folder_gb=1e-4)
    assert build_store(large, Resize(40), options=tight).pixels.place == "in RAM"
    assert sorted((tmp_path / "stores").rglob("*.npy")) == before
    fitting = StoreOptions(place="disk", folder=tmp_path / "stores", folder_gb=5.8e-4)
    build_store(large, Resize(40), options=fitting)
    assert sorted((tmp_path / "stores").rglob("*.npy")) != before
    assert (tmp_path / "stores" / "holiday" / "0.png").is_file()


def test_the_room_is_looked_for_that_is_needed_in_the_end(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 100, "b": 2}, size=(4, 4))
    save_photo(root / "a" / "1234.png", size=(90, 90))
    with pytest.raises(UnfreezeError, match=r"more than cache\.gb"):
        on_disk(folder_source(root), tmp_path / "stores", Resize(64), folder_gb=5e-4)
    assert not list((tmp_path / "stores").rglob("*.npy"))


def test_a_cache_that_can_only_be_read_is_read(photo_folder: MakeFolder, tmp_path: Path) -> None:
    source, count = counted(photo_folder({"a": 3, "b": 3}))
    on_disk(source, tmp_path / "stores")
    for lock in (tmp_path / "stores").rglob("*.lock"):
        lock.unlink()
    folders = [tmp_path / "stores", *(path for path in (tmp_path / "stores").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    count.value = 0
    try:
        on_disk(source, tmp_path / "stores")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert count.value == 0


def _build_by_workers(root: Path, folder: Path) -> None:
    source = folder_source(root)
    images = source.images
    assert isinstance(images, FileImages)
    slow = CountedImages(images.root, images.paths, count=CONTEXT.Value("i", 0), pause_s=0.2)
    options = StoreOptions(place="disk", folder=folder, workers=2)
    source = ImageSource(source.name, source.classes, slow, source.labels, source.splits)
    build_store(source, Resize(16), options=options)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc to look for processes in")
def test_workers_end_with_a_process_that_is_killed(photo_folder: MakeFolder, tmp_path: Path) -> None:
    root = photo_folder({"a": 60, "b": 60})
    job = FRESH.Process(target=_build_by_workers, args=(root, tmp_path / "stores"))
    job.start()
    assert job.pid is not None
    deadline = time.monotonic() + 60
    while len(_children(job.pid)) != 2:
        assert time.monotonic() < deadline
        assert job.is_alive()
        time.sleep(0.05)
    workers = _children(job.pid)
    os.kill(job.pid, signal.SIGKILL)
    job.join(10)
    deadline = time.monotonic() + 10
    while any(_is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the process that they worked for"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
