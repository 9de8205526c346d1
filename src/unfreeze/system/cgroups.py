"""The control groups of this process, through which containers set limits (cgroup v2)."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def control_groups() -> list[Path]:
    """Return the folders of the process's control group and its ancestors; empty if there are none."""
    try:
        lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return [] if own is None else [_CGROUPS / folder for folder in (Path(own), *Path(own).parents)]
