"""This machine's memory: what is free, and what training on a CPU frees in one step and wants in the next."""

import ctypes
import sys
from pathlib import Path

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


def free_memory_bytes() -> int:
    """Return what the kernel could give, or 16 GB where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 16 << 30
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 16 << 30)
