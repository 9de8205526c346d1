"""The cache folder and its entries: one folder with one size limit; entries in use are never removed."""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from unfreeze.cache.scan import LOCK_FILE, META_FILE, EntrySize, measure_entry, subfolders
from unfreeze.cache.usage import UsageLock
from unfreeze.system.files import BUILDING, replacing
from unfreeze.system.text import size_text

log = logging.getLogger("unfreeze.cache.folder")

Kind = Literal["decoded", "features"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONTENT = {"decoded": "pixels", "features": "features"}
_BUILDING = {"decoded": "decodes these images", "features": "computes these features"}
_KEY = re.compile(r"[0-9a-f]{32}")
_REMOVED = re.compile(r"[0-9a-f]{32}\.removed")

_SPARE_DISK_BYTES = 1 << 30
_CACHE_LOCK_S = 10.0
_ATTEMPT_S = 0.2
"""Timeout before a waiting builder logs a message; checking or removing an entry takes less."""


class NoRoomError(Exception):
    """New content does not fit into the cache; the message names the limit and what to type."""


@dataclass(frozen=True)
class CachedItem:
    """The state of one entry, for listings.

    Args:
        kind: Kind of its content.
        key: Its name, 32 hex digits.
        nbytes: Total size of its files.
        last_used: Time of the last use, in seconds since 1970.
        in_use: True if a process uses or builds it now.
        meta: The description by `CacheEntry.describe`; empty if there is none.
    """

    kind: Kind
    key: str
    nbytes: int
    last_used: float
    in_use: bool
    meta: dict[str, Any]


@dataclass(frozen=True)
class CacheFolder:
    """A folder of entries, `<root>/<kind>/<key>/`; other files in it are never touched, and links not followed.

    Args:
        root: The folder; created with the first entry.
        gb: Limit of the total size of all entries, in 10^9 bytes.
    """

    root: Path
    gb: float

    def entry(self, kind: Kind, key: str) -> "CacheEntry":
        """Return an entry, which need not exist.

        Args:
            kind: Kind of its content.
            key: 32 hex digits, a hash of everything that the content depends on.

        Raises:
            ValueError: If the kind or the key is invalid.
        """
        if kind not in KINDS or not _KEY.fullmatch(key):
            raise ValueError(f"want a kind of {', '.join(KINDS)} and 32 hex digits, got {kind!r} and {key!r}")
        return CacheEntry(self, kind, key)

    def entries(self) -> list[CachedItem]:
        """Return all entries, the least recently used first."""
        with self._locked():
            items = [
                CachedItem(entry.kind, entry.key, size.nbytes, size.last_used, entry.is_used(), entry.meta)
                for entry, size in self._sizes().items()
            ]
        return sorted(items, key=lambda item: item.last_used)

    def remove(self, item: CachedItem) -> bool:
        """Remove an entry unless a process uses it, including this one; return whether it was removed.

        Raises:
            OSError: If removal fails, for example for lack of permission.
        """
        with self._locked():
            self._sweep()
            return self.entry(item.kind, item.key).remove()

    def make_room(self, nbytes: int, *, beside: "CacheEntry") -> None:
        """Remove the least recently used entries until new content fits under the limit and on the disk.

        Args:
            nbytes: Size of the new content.
            beside: The entry of the new content, which is not removed.

        Raises:
            NoRoomError: If it can't fit; nothing is removed then.
        """
        with self._locked():
            self._sweep()
            sizes = self._sizes()
            under_limit = self.gb * 1e9 - sum(size.nbytes for size in sizes.values())
            on_disk = shutil.disk_usage(self.root).free - _SPARE_DISK_BYTES
            room = min(under_limit, on_disk)
            if room >= nbytes:
                return
            others = {entry: size for entry, size in sizes.items() if entry.folder != beside.folder}
            unused = {entry: size for entry, size in others.items() if not entry.is_used()}
            removable = sum(size.nbytes for size in unused.values())
            in_use = sum(size.nbytes for size in others.values()) - removable
            self._check_fits(
                nbytes, beside.kind, under_limit=under_limit + removable, on_disk=on_disk + removable, in_use=in_use
            )
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

    def _check_fits(self, nbytes: int, kind: Kind, *, under_limit: float, on_disk: float, in_use: int) -> None:
        content = f"{size_text(nbytes)} of {_CONTENT[kind]}"
        beside = f" beside {size_text(in_use)} in use" if in_use else ""
        later = ", or try again when less is in use" if in_use else ""
        if nbytes > under_limit:
            raise NoRoomError(
                f"{content} are more than cache.gb={self.gb:g} leaves{beside}; type a larger cache.gb{later}"
            )
        if nbytes > on_disk:
            raise NoRoomError(f"{content} do not fit on the disk of {self.root}{beside}; type another cache.dir{later}")

    def _sizes(self) -> "dict[CacheEntry, EntrySize]":
        sizes = {}
        for kind in KINDS:
            for path in subfolders(self.root / kind):
                if _KEY.fullmatch(path.name) and (size := measure_entry(path)) is not None:
                    sizes[CacheEntry(self, kind, path.name)] = size
        return sizes

    def _sweep(self) -> None:
        """Finish removals that were interrupted."""
        for kind in KINDS:
            for path in subfolders(self.root / kind):
                if _REMOVED.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the cache: a check whether an entry is in use locks it briefly, like a use."""
        lock = FileLock(self.root / "cache.lock")
        try:
            lock.acquire(timeout=_CACHE_LOCK_S)
        except (Timeout, OSError):  # a process was suspended while holding it, or the folder is read-only
            yield
            return
        try:
            yield
        finally:
            lock.release()


class CacheEntry:
    """One entry, whose files are in `folder`; created by `CacheFolder.entry`."""

    def __init__(self, cache: CacheFolder, kind: Kind, key: str) -> None:
        self.cache = cache
        self.kind = kind
        self.key = key
        self.folder = cache.root / kind / key
        self._usage: UsageLock | None = None
        self._locks: dict[int, FileLock] = {}

    @property
    def _lock(self) -> FileLock:
        """The builder's lock, one per process: forked processes must not share their parent's."""
        return self._locks.setdefault(os.getpid(), FileLock(f"{self.folder}.lock"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the builder's lock in this context, and create the folder.

        Raises:
            OSError: If the folder can't be created.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder):
            if folder.is_symlink():
                raise OSError(errno.ELOOP, f"{folder.name} is a link; let cache.dir itself lead elsewhere", str(folder))
        try:
            self._lock.acquire(timeout=_ATTEMPT_S)
        except Timeout:
            log.warning(f"  {'':<13} waiting for another run, which {_BUILDING[self.kind]}")
            self._lock.acquire()
        try:
            self.folder.mkdir(exist_ok=True)
            (self.folder / LOCK_FILE).touch()
            yield
        finally:
            self._remove_if_empty()
            self._lock.release()

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield a temporary path for a file, which is renamed at the end, so that readers never see a partial file."""
        with replacing(self.folder / name) as building:
            yield building
            with building.open("rb+") as file:
                os.fsync(file.fileno())

    def describe(self, meta: Mapping[str, object]) -> None:
        """Write a description of the content: strings, counts named by their unit, lists of strings."""
        created = self.meta.get("created") or datetime.now(UTC).isoformat(timespec="seconds")
        with self.write(META_FILE) as path:
            path.write_text(json.dumps({**meta, "created": created}, indent=2), encoding="utf-8")

    @property
    def meta(self) -> dict[str, Any]:
        """The description by `describe`; empty if there is none."""
        try:
            meta = json.loads((self.folder / META_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def make_room(self, nbytes: int) -> None:
        """Remove the least recently used other entries until new content fits.

        Raises:
            NoRoomError: If it can't fit; nothing is removed then.
        """
        self.cache.make_room(nbytes, beside=self)

    def use(self) -> bool:
        """Protect the entry from removal until `release` or the end of this process and its forks.

        Returns:
            True if the entry exists; its files may still have to be built.
        """
        if self._usage is None:
            self._usage = UsageLock.share(self.folder / LOCK_FILE)
        return self._usage is not None

    def release(self) -> None:
        """End this object's use of the entry, and update the time of its last use."""
        if self._usage is not None:
            self.touch()
            self._usage.close()
            self._usage = None

    def is_used(self) -> bool:
        """Return whether a process uses or builds the entry, including this one."""
        if UsageLock.is_held(self.folder / LOCK_FILE):
            return True
        with suppress(OSError):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return True
            self._lock.release()
        return False

    def touch(self) -> None:
        """Update the time of the last use, if the entry is writable."""
        with suppress(OSError):
            (self.folder / LOCK_FILE).touch()

    def clean(self) -> None:
        """Remove temporary files of interrupted builds; call it within `locked`."""
        for file in self.folder.glob(f"{BUILDING}*"):
            file.unlink(missing_ok=True)

    def remove(self) -> bool:
        """End this object's use and remove the entry unless others use or build it; return whether it was removed.

        Raises:
            OSError: If removal fails, for example for lack of permission.
        """
        if self.folder.is_symlink() or self.folder.parent.is_symlink() or measure_entry(self.folder) is None:
            self.release()
            return not os.path.lexists(self.folder)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self.release()
            return False
        removed = self.folder.with_name(f"{self.key}.removed")
        usage, self._usage = self._usage, None
        try:
            usage = UsageLock.take(self.folder / LOCK_FILE, usage)
            if usage is None:
                return False
            # Renamed first, so that other processes never see a partly removed entry.
            shutil.rmtree(removed, ignore_errors=True)
            self.folder.rename(removed)
        finally:
            if usage is not None:
                usage.close()
            self._lock.release()
        shutil.rmtree(removed, ignore_errors=True)
        return True

    def _remove_if_empty(self) -> None:
        with suppress(OSError):
            file = self.folder / LOCK_FILE
            if [*self.folder.iterdir()] == [file] and (usage := UsageLock.take(file, None)) is not None:
                file.unlink()
                self.folder.rmdir()
                usage.close()
