"""The owner of a directory: the one process that writes a run or a sweep."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from unfreeze.errors import UnfreezeError

LOCK = ".lock"
"""The file that an owner locks; it holds the owner's process and host, a line each, and goes with the owner."""

SUMMARY_LOCK = ".summary.lock"
"""Of a sweep, whose jobs may end at the same time: held while its summary is written."""

_GLANCE_S = 0.5
"""Timeout of an attempt to lock: an owner that ends right now removes its file."""

_SUMMARY_S = 60.0


class DirectoryInUseError(UnfreezeError):
    """Another process owns the directory."""


class DirectoryLock:
    """The ownership of a directory, from `acquire` to `release` or the end of this process.

    The lock is the kernel's (flock), so that an owner that was killed owns nothing, and processes that it has forked
    don't either. It holds across hosts on NFS; where a file system has no such locks, a file marks the owner, and is
    taken over where its process on this host has ended.
    """

    def __init__(self, lock: BaseFileLock, folder: Path, *, has_made_folder: bool) -> None:
        self.folder = folder
        self._lock = lock
        self._has_made_folder = has_made_folder

    @classmethod
    def acquire(cls, folder: Path, *, verb: str, advice: str) -> "DirectoryLock":
        """Own a directory, which is made if it is not there.

        Args:
            folder: The directory of a run, a sweep or an evaluation.
            verb: The command or key that asks for it, for the message.
            advice: What to type instead of waiting, for the message.

        Raises:
            DirectoryInUseError: If another process owns it, naming the process and its host.
            UnfreezeError: If it can't be made or written to.
        """
        is_new = not folder.exists()
        lock: BaseFileLock = FileLock(folder / LOCK, timeout=_GLANCE_S)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the marker file in place of flock
                lock.acquire()
            if not isinstance(lock, SoftFileLock):
                (folder / LOCK).write_text(f"{os.getpid()}\n{gethostname()}\n", encoding="utf-8")
        except Timeout:
            raise _in_use(folder, verb, advice) from None
        except OSError as error:
            raise UnfreezeError(
                f"{verb}: can't write in {str(folder)!r} ({error.strerror or error}); want a directory to write in, "
                f"or {advice}"
            ) from None
        return cls(lock, folder, has_made_folder=is_new)

    @staticmethod
    def check_unowned(folder: Path, *, verb: str, advice: str) -> None:
        """Refuse a directory that another process owns, without owning or changing it.

        Raises:
            DirectoryInUseError: As `acquire`.
        """
        if not (folder / LOCK).is_file():
            return
        with suppress(OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                with FileLock(folder / LOCK, timeout=_GLANCE_S):
                    return
            except Timeout:
                raise _in_use(folder, verb, advice) from None

    def release(self) -> None:
        """Give the directory up; one that was made for nothing goes with it."""
        if not self._lock.is_locked:
            return
        _release(self._lock)
        if self._has_made_folder:
            with suppress(OSError):
                self.folder.rmdir()


def _in_use(folder: Path, verb: str, advice: str) -> DirectoryInUseError:
    return DirectoryInUseError(
        f"{verb}: {str(folder)!r} is in use by {describe_owner(folder)}; wait for its end, or {advice}"
    )


def describe_owner(folder: Path) -> str:
    """Return the process and the host that own a directory, as far as they are known."""
    with suppress(OSError, UnicodeDecodeError):
        pid, host, *_ = [*(folder / LOCK).read_text(encoding="utf-8").splitlines(), "", ""]
        if pid.isdigit() and host:
            return f"process {pid} on this host ({host})" if host == gethostname() else f"process {pid} on host {host}"
    return "another process"


@contextmanager
def owned(folder: Path, *, verb: str, advice: str) -> Iterator[None]:
    """Own a directory for a while, as `DirectoryLock.acquire` does.

    Raises:
        UnfreezeError: If it can't be owned.
    """
    lock = DirectoryLock.acquire(folder, verb=verb, advice=advice)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing_summary(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's summary while it is written; after a minute of waiting, write without it."""
    lock: BaseFileLock = FileLock(folder / SUMMARY_LOCK, timeout=_SUMMARY_S)
    with warnings.catch_warnings(), suppress(Timeout, OSError):
        warnings.simplefilter("ignore", UserWarning)
        lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            _release(lock)


def _release(lock: BaseFileLock) -> None:
    """Release a lock, and remove its file while it is locked: whoever opened the file then sees that it is gone."""
    if not isinstance(lock, SoftFileLock):
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
