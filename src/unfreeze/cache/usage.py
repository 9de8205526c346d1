"""Files that processes lock to say that they use what stands beside them; the system forgets it when they end."""

import errno
import os
from pathlib import Path

_UNKNOWN = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Of a file system that knows no such locks."""

_HAS_LOCKS = os.name == "posix"
"""Elsewhere no folder can be renamed whose files are open, which does as well."""


class Mark:
    """A lock on a file: shared by all who use what it stands for, or held by the one who is to remove that.

    It ends with `close`, or with the last process that has inherited it.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._owner = os.getpid()

    @classmethod
    def share(cls, path: Path) -> "Mark | None":
        """Say that this process uses what a file stands for; None where the file's folder is not there.

        Where the file may be neither made nor opened, the mark is there for this process alone.
        """
        while path.parent.is_dir():
            fd = _open(path, create=True)
            if fd is None:
                return cls(None) if path.parent.is_dir() else None
            try:
                # It waits while another takes the file to remove it, and is then locked for nothing.
                _lock(fd, shared=True)
                if _is_at(fd, path):
                    return cls(fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        return None

    @classmethod
    def take(cls, path: Path, own: "Mark | None") -> "Mark | None":
        """Return a mark that nobody else has, or None where somebody has one.

        Args:
            path: The file.
            own: A mark of the caller's, which ends.
        """
        if own is not None and own._fd is not None and own._owner == os.getpid():
            fd: int | None = own._fd  # forked processes share it, and do not stand against it
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
        """Return whether any process has a mark."""
        fd = _open(path, create=False)
        if fd is None:
            return False
        try:
            return not _lock(fd, shared=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        """End it, for this process."""
        if self._fd is not None:
            # Never unlocked: that would end it for forked processes too.
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
    """Lock a file, shared or, where nobody has a lock, alone; return False where somebody has."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNKNOWN
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except OSError:
        return False
