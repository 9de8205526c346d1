"""Memory that training on a CPU frees in one step and wants again in the next."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_pages() -> None:
    """Let the C library keep what is freed, where it is glibc; for the whole process.

    By default glibc gives large blocks back to the kernel at once, and each step pays again for the kernel to map and
    clear them. Kept, they cost some percent of peak memory.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
