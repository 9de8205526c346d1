"""This machine's memory: what is free, and what training on a CPU frees in one step and wants in the next."""

import ctypes
import os
import sys
from pathlib import Path

from unfreeze.system.cgroups import control_groups

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
    """Return what the kernel could give; less where a container's limit is closer.

    Where the kernel does not say, as on macOS, it is half of the machine's memory, or 4 GB where that is not known.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _half_of_memory()
    machine = next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), _half_of_memory()
    )
    return max(0, min([machine, *_free_in_groups()]))


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return 4 << 30


def _free_in_groups() -> list[int]:
    """Return what each control group with a limit leaves; pages of files that nobody has used lately can be had."""
    free = []
    for folder in control_groups():
        try:
            limit, current = (int((folder / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            free.append(limit - current + int(stat.get("inactive_file", 0)))
        except (OSError, ValueError):  # no such file at the root, or "max"
            continue
    return free
