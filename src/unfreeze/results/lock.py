"""Locks of directories: one process writes a run or a sweep."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from unfreeze.errors import UnfreezeError

LOCK = ".lock"
"""The file that the owner locks; it has the owner's process and host, a line each, and is removed at release."""

SUMMARY_LOCK = ".summary.lock"
"""The file that a job of a sweep locks to write the summary, because several jobs may end at the same time."""

_ATTEMPT_S = 0.5
"""Timeout of an attempt to lock, long enough for an owner that ends to remove its file."""

_SUMMARY_S = 60.0


class DirectoryInUseError(UnfreezeError):
    """Another process owns the directory."""


class DirectoryLock:
    """The ownership of a directory, from `acquire` to `release` or the end of this process.

    The lock is an flock, which the kernel releases if the owner is killed, and which forked processes do not inherit.
    It works across hosts on NFS. On file systems without flock, a marker file is used, which another process takes
    over if the owner on this host has ended.
    """

    def __init__(self, lock: BaseFileLock, folder: Path, *, created_folder: bool) -> None:
        self.folder = folder
        self._lock = lock
        self._created_folder = created_folder

    @classmethod
    def acquire(cls, folder: Path, *, verb: str, advice: str) -> "DirectoryLock":
        """Acquire the ownership of a directory, which is created if missing.

        Args:
            folder: The directory of a run, a sweep or an evaluation.
            verb: The command or key, for the message.
            advice: Alternative to waiting, for the message.

        Raises:
            DirectoryInUseError: If another process owns it; the message names the process and its host.
            UnfreezeError: If it can't be created or written to.
        """
        is_new = not folder.exists()
        lock: BaseFileLock = FileLock(folder / LOCK, timeout=_ATTEMPT_S)
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
        return cls(lock, folder, created_folder=is_new)

    @staticmethod
    def check_unowned(folder: Path, *, verb: str, advice: str) -> None:
        """Check that no other process owns a directory, without acquiring or changing it.

        Raises:
            DirectoryInUseError: As `acquire`.
        """
        if not (folder / LOCK).is_file():
            return
        with suppress(OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                with FileLock(folder / LOCK, timeout=_ATTEMPT_S):
                    return
            except Timeout:
                raise _in_use(folder, verb, advice) from None

    def release(self) -> None:
        """Release the directory; remove it if it was created here and is empty."""
        if not self._lock.is_locked:
            return
        _release(self._lock)
        if self._created_folder:
            with suppress(OSError):
                self.folder.rmdir()


def _in_use(folder: Path, verb: str, advice: str) -> DirectoryInUseError:
    return DirectoryInUseError(
        f"{verb}: {str(folder)!r} is in use by {describe_owner(folder)}; wait for its end, or {advice}"
    )


def describe_owner(folder: Path) -> str:
    """Return the process and the host that own a directory, or "another process" if they are unknown."""
    with suppress(OSError, UnicodeDecodeError):
        pid, host, *_ = [*(folder / LOCK).read_text(encoding="utf-8").splitlines(), "", ""]
        if pid.isdigit() and host:
            return f"process {pid} on this host ({host})" if host == gethostname() else f"process {pid} on host {host}"
    return "another process"


@contextmanager
def owned(folder: Path, *, verb: str, advice: str) -> Iterator[None]:
    """Own a directory in this context.

    Raises:
        UnfreezeError: As `DirectoryLock.acquire`.
    """
    lock = DirectoryLock.acquire(folder, verb=verb, advice=advice)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def summary_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's summary in this context; after a minute of waiting, go on without it."""
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
    """Remove the file of a lock while it is locked, so that waiting processes notice the removal, and release it."""
    if not isinstance(lock, SoftFileLock):
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
