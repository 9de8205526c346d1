"""Free memory of this machine, and reuse of freed memory by the C library."""

import ctypes
import os
import sys
from pathlib import Path

from unfreeze.system.cgroups import control_groups

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_pages() -> None:
    """Make glibc keep freed memory, for the whole process; a no-op with other C libraries.

    By default glibc returns large blocks to the kernel at once, which has to map and clear them again in each step.
    Keeping them costs a few percent of peak memory.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def free_memory_bytes() -> int:
    """Return the available memory of the machine, or of the container if that is less.

    Without /proc/meminfo, as on macOS, half of the machine's memory, or 4 GB if that is unknown.
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
    """Return the free memory of each control group with a limit; inactive file pages count as free."""
    free = []
    for folder in control_groups():
        try:
            limit, current = (int((folder / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            free.append(limit - current + int(stat.get("inactive_file", 0)))
        except (OSError, ValueError):  # no such file at the root, or "max"
            continue
    return free
