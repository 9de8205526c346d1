"""Locks that mark an entry as used; the kernel releases them when the processes end."""

import errno
import os
from pathlib import Path

_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems without flock."""

_HAS_LOCKS = os.name == "posix"
"""On Windows, folders with open files can't be renamed, which protects entries as well."""


class UsageLock:
    """A lock on a file of an entry: shared by its users, or exclusive for its removal.

    It is released by `close`, or at the end of the last process that inherited it.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._owner = os.getpid()

    @classmethod
    def share(cls, path: Path) -> "UsageLock | None":
        """Return a shared lock of this process; None if the folder of the file is missing.

        If the file can be neither created nor opened, the lock has no effect on other processes.
        """
        while path.parent.is_dir():
            fd = _open(path, create=True)
            if fd is None:
                return cls(None) if path.parent.is_dir() else None
            try:
                # This blocks while another process removes the entry; the file is then no longer at its path.
                _lock(fd, shared=True)
                if _is_at(fd, path):
                    return cls(fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        return None

    @classmethod
    def take(cls, path: Path, own: "UsageLock | None") -> "UsageLock | None":
        """Return an exclusive lock, or None if another process has a lock.

        Args:
            path: The file.
            own: The caller's shared lock, which is converted or released.
        """
        if own is not None and own._fd is not None and own._owner == os.getpid():
            fd: int | None = own._fd  # the same lock as that of forked processes
        else:
            if own is not None:
                own.close()
            fd = _open(path, create=True)
            if fd is None:
                return None if _HAS_LOCKS else cls(None)
        assert fd is not None
        if _lock(fd, shared=False) and _is_at(fd, path):
            return cls(fd)
        os.close(fd)
        return None

    @staticmethod
    def is_held(path: Path) -> bool:
        """Return whether any process has a lock."""
        fd = _open(path, create=False)
        if fd is None:
            return False
        try:
            return not _lock(fd, shared=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Release the lock for this process."""
        if self._fd is not None:
            # Closed, not unlocked: unlocking would release it for forked processes too.
            os.close(self._fd)
            self._fd = None


def _open(path: Path, *, create: bool) -> int | None:
    if not _HAS_LOCKS:
        return None
    for flags in (os.O_RDWR | (os.O_CREAT if create else 0), os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError:
            continue
    return None


def _lock(fd: int, *, shared: bool) -> bool:
    """Lock a file, shared or exclusive without waiting; return False if another process has a lock."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except OSError:
        return False
