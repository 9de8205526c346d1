"""The folder of what later runs use again: one place and one cap for all of it, and nothing in use is removed."""

import errno
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from filelock import FileLock, Timeout

from unfreeze.cache.usage import Mark
from unfreeze.system.files import BUILDING, replacing

log = logging.getLogger("unfreeze.cache.folder")

Kind = Literal["decoded", "features"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONTENT = {"decoded": "pixels", "features": "features"}
_BUILDING = {"decoded": "decodes these images", "features": "computes these features"}
_KEY = re.compile(r"[0-9a-f]{32}")
_REMOVED = re.compile(r"[0-9a-f]{32}\.removed")
_MARK = "in-use"
_META = "entry.json"
_SIGNS = {_MARK, "facts.npz"}
"""What tells an entry from a folder that somebody else has put there; the latter is in those of earlier versions."""

_SPARE_DISK_BYTES = 1 << 30
_TURN_S = 10.0
_GLANCE_S = 0.2
"""As long as another may take to look whether an entry is in use, or to remove it."""


class NoRoomError(Exception):
    """Something does not fit where it should go; the message says why, and what to type."""


@dataclass(frozen=True)
class CachedItem:
    """One entry as a person sees it.

    Args:
        kind: Of what it holds.
        key: Its name, 32 hex digits.
        nbytes: Of all its files.
        last_used: In seconds since 1970.
        in_use: Whether a process uses or builds it now.
        meta: What `CacheEntry.describe` has noted; empty where nothing was.
    """

    kind: Kind
    key: str
    nbytes: int
    last_used: float
    in_use: bool
    meta: dict[str, Any]


@dataclass(frozen=True)
class CacheFolder:
    """A folder of entries, `<root>/<kind>/<key>/`; nothing else in it is ever touched, and no link is followed.

    Args:
        root: The folder; made when the first entry is.
        gb: The most that all entries together may take, in 10^9 bytes.
    """

    root: Path
    gb: float

    def entry(self, kind: Kind, key: str) -> "CacheEntry":
        """Return an entry, which may be there or not yet.

        Args:
            kind: Of what it holds.
            key: 32 hex digits, a hash of all that the content depends on.

        Raises:
            ValueError: If there is no such kind, or the key is something else.
        """
        if kind not in KINDS or not _KEY.fullmatch(key):
            raise ValueError(f"want a kind of {', '.join(KINDS)} and 32 hex digits, got {kind!r} and {key!r}")
        return CacheEntry(self, kind, key)

    def entries(self) -> list[CachedItem]:
        """Return all entries, the one used longest ago first."""
        with self._turn():
            found = [
                CachedItem(entry.kind, entry.key, size.nbytes, size.last_used, entry.is_used(), entry.meta)
                for entry, size in self._sizes().items()
            ]
        return sorted(found, key=lambda item: item.last_used)

    def remove(self, item: CachedItem) -> bool:
        """Remove an entry unless a process uses it, this one included; return whether it is gone.

        Raises:
            OSError: If it may not be removed.
        """
        with self._turn():
            self._sweep()
            return self.entry(item.kind, item.key).remove()

    def make_room(self, nbytes: int, *, beside: "CacheEntry") -> None:
        """Remove entries used longest ago until some bytes more fit, under the cap and on the disk.

        Args:
            nbytes: What is to be written.
            beside: The entry it goes into, which stays.

        Raises:
            NoRoomError: If they can't be made to fit; nothing is removed then.
        """
        with self._turn():
            self._sweep()
            sizes = self._sizes()
            under_cap = self.gb * 1e9 - sum(size.nbytes for size in sizes.values())
            on_disk = shutil.disk_usage(self.root).free - _SPARE_DISK_BYTES
            room = min(under_cap, on_disk)
            if room >= nbytes:
                return
            others = {entry: size for entry, size in sizes.items() if entry.folder != beside.folder}
            unused = {entry: size for entry, size in others.items() if not entry.is_used()}
            most = sum(size.nbytes for size in unused.values())
            held = sum(size.nbytes for size in others.values()) - most
            self._refuse(nbytes, beside.kind, under_cap=under_cap + most, on_disk=on_disk + most, held=held)
            for entry in sorted(unused, key=lambda entry: unused[entry].last_used):
                if room >= nbytes:
                    return
                with suppress(OSError):
                    room += unused[entry].nbytes if entry.remove() else 0
            if room < nbytes:
                raise NoRoomError(
                    f"{size_text(nbytes)} of {_CONTENT[beside.kind]} do not fit beside what other runs use now; "
                    "try again later"
                )

    def _refuse(self, nbytes: int, kind: Kind, *, under_cap: float, on_disk: float, held: int) -> None:
        wanted = f"{size_text(nbytes)} of {_CONTENT[kind]}"
        beside = f" beside {size_text(held)} in use" if held else ""
        later = ", or try again when less is in use" if held else ""
        if nbytes > under_cap:
            raise NoRoomError(
                f"{wanted} are more than cache.gb={self.gb:g} leaves{beside}; type a larger cache.gb{later}"
            )
        if nbytes > on_disk:
            raise NoRoomError(f"{wanted} do not fit on the disk of {self.root}{beside}; type another cache.dir{later}")

    def _sizes(self) -> "dict[CacheEntry, _Size]":
        sizes = {}
        for kind in KINDS:
            for path in _folders(self.root / kind):
                if _KEY.fullmatch(path.name) and (size := _size(path)) is not None:
                    sizes[CacheEntry(self, kind, path.name)] = size
        return sizes

    def _sweep(self) -> None:
        """Finish what a process that removed an entry was killed in."""
        for kind in KINDS:
            for path in _folders(self.root / kind):
                if _REMOVED.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one process at a time look at who uses what: looking is a lock too, which another takes for a use."""
        lock = FileLock(self.root / "cache.lock")
        try:
            lock.acquire(timeout=_TURN_S)
        except (Timeout, OSError):  # somebody was stopped in the middle, or the folder can only be read
            yield
            return
        try:
            yield
        finally:
            lock.release()


class CacheEntry:
    """The files of one key, in `folder`; made by `CacheFolder.entry`."""

    def __init__(self, cache: CacheFolder, kind: Kind, key: str) -> None:
        self.cache = cache
        self.kind = kind
        self.key = key
        self.folder = cache.root / kind / key
        self._mark: Mark | None = None
        self._locks: dict[int, FileLock] = {}

    @property
    def _lock(self) -> FileLock:
        """The builder's lock: a forked process must not go on with its parent's."""
        return self._locks.setdefault(os.getpid(), FileLock(f"{self.folder}.lock"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from building the same, and make the folder.

        Raises:
            OSError: If the folder can't be made.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder):
            if folder.is_symlink():
                raise OSError(errno.ELOOP, f"{folder.name} is a link; let cache.dir itself lead elsewhere", str(folder))
        try:
            self._lock.acquire(timeout=_GLANCE_S)
        except Timeout:
            log.warning(f"  {'':<13} waiting for another run, which {_BUILDING[self.kind]}")
            self._lock.acquire()
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / _MARK).touch()
            yield
        finally:
            self._forget_empty()
            self._lock.release()

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield the path of a file to write, which takes its name at the end: readers see all of it or nothing."""
        with replacing(self.folder / name) as building:
            yield building
            with building.open("rb+") as file:
                os.fsync(file.fileno())

    def describe(self, meta: Mapping[str, object]) -> None:
        """Note what the entry holds, for people: strings, numbers named by what they count, lists of strings."""
        created = self.meta.get("created") or datetime.now(UTC).isoformat(timespec="seconds")
        with self.write(_META) as path:
            path.write_text(json.dumps({**meta, "created": created}, indent=2), encoding="utf-8")

    @property
    def meta(self) -> dict[str, Any]:
        """What `describe` has noted; empty where nothing was."""
        try:
            meta = json.loads((self.folder / _META).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def make_room(self, nbytes: int) -> None:
        """Remove other entries, those used longest ago, until some bytes more fit.

        Raises:
            NoRoomError: If they can't be made to fit; nothing is removed then.
        """
        self.cache.make_room(nbytes, beside=self)

    def use(self) -> bool:
        """Keep everybody from removing the entry until `release` or the end of this process, however it ends.

        Processes that are forked from this one keep it in use until they end too.

        Returns:
            Whether the entry is there; its files may still have to be built.
        """
        if self._mark is None:
            self._mark = Mark.share(self.folder / _MARK)
        return self._mark is not None

    def release(self) -> None:
        """Let the entry go, as far as this object is concerned; it was used until now."""
        if self._mark is not None:
            self.touch()
            self._mark.close()
            self._mark = None

    def is_used(self) -> bool:
        """Return whether a process uses or builds the entry, this one included."""
        if Mark.is_held(self.folder / _MARK):
            return True
        with suppress(OSError):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return True
            self._lock.release()
        return False

    def touch(self) -> None:
        """Note that the entry was used, where that may be noted."""
        with suppress(OSError):
            (self.folder / _MARK).touch()

    def clean(self) -> None:
        """Remove what a builder that was killed has left; for the one who builds, within `locked`."""
        for left in self.folder.glob(f"{BUILDING}*"):
            left.unlink(missing_ok=True)

    def remove(self) -> bool:
        """Remove the entry unless others use or build it; this object's own use ends. Return whether it is gone.

        Raises:
            OSError: If it may not be removed.
        """
        if self.folder.is_symlink() or self.folder.parent.is_symlink() or _size(self.folder) is None:
            self.release()
            return not os.path.lexists(self.folder)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self.release()
            return False
        removed = self.folder.with_name(f"{self.key}.removed")
        mark, self._mark = self._mark, None
        try:
            mark = Mark.take(self.folder / _MARK, mark)
            if mark is None:
                return False
            # Whoever comes now finds no entry, rather than one that loses file after file.
            shutil.rmtree(removed, ignore_errors=True)
            self.folder.rename(removed)
        finally:
            if mark is not None:
                mark.close()
            self._lock.release()
        shutil.rmtree(removed, ignore_errors=True)
        return True

    def _forget_empty(self) -> None:
        with suppress(OSError):
            file = self.folder / _MARK
            if [*self.folder.iterdir()] == [file] and (mark := Mark.take(file, None)) is not None:
                file.unlink()
                self.folder.rmdir()
                mark.close()


class _Size(NamedTuple):
    nbytes: int
    last_used: float


def cache_root(asked: str | None) -> Path:
    """Return the folder for what later runs can use again: the one asked for, or the user's cache folder."""
    if asked is not None:
        return Path(asked).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unfreeze")


def size_text(nbytes: float) -> str:
    """Return a number of bytes as a person says it, such as "1.5 GB"; in powers of 1000."""
    scales = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit, scale in scales.items() if nbytes >= scale), "kB")
    return f"{nbytes / scales[unit]:.1f} {unit}"


def _folders(parent: Path) -> list[Path]:
    if parent.is_symlink():
        return []
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _size(folder: Path) -> _Size | None:
    """Return what an entry's files take and when one was last written or touched; None for what is no entry."""
    nbytes, last_used, names = 0, 0.0, set()
    try:
        with os.scandir(folder) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    found = file.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        return None
                    names.add(file.name)
                    nbytes += found.st_size
                    last_used = max(last_used, found.st_mtime)
    except OSError:
        return None
    return _Size(nbytes, last_used) if names & _SIGNS else None
