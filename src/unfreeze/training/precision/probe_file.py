"""The verdicts of probes on this machine, in one file that later runs look into."""

import json
import platform
from collections.abc import Collection
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from unfreeze.system.files import replacing
from unfreeze.training.precision.precision import Verdict

_LAYOUT = 1
_TURN_S = 5.0
_CPU_HAS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""What decides how fast a CPU is in bfloat16; two machines of one cloud may bear the same name without it."""


class ProbeFile:
    """Verdicts by what they hold for; content that is damaged or of another program counts as none.

    Args:
        path: The file; made when the first verdict is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> Verdict | None:
        """Return the verdict that was kept under a key."""
        try:
            return Verdict.from_dict(self._read()[key])
        except (KeyError, ValueError):
            return None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Add a verdict to those of other runs, where that may be written."""
        with suppress(OSError, Timeout):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=_TURN_S):
                verdicts = {**self._read(), key: verdict.to_dict()}
                content = json.dumps({"layout": _LAYOUT, "verdicts": verdicts}, indent=1)
                with replacing(self._path) as building:
                    building.write_text(content, encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("layout") != _LAYOUT:
            return {}
        verdicts = content.get("verdicts")
        return verdicts if isinstance(verdicts, dict) else {}


def probe_key(
    *, machine: str, threads: int, architecture: str, live: Collection[str], image_px: int, batch_size: int
) -> str:
    """Return the name of a verdict: another one where anything has changed that the speed depends on."""
    facts = [machine, torch.__version__, threads, architecture, sorted(live), image_px, batch_size]
    return blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def describe_machine(device: torch.device) -> str:
    """Return the name of a device: the GPU's, or the CPU's with the best of its instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = _cpu_facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags", "").split()
    best = next((flag for flag in _CPU_HAS if flag in flags), None)
    return f"{name} ({best})" if best else name


def _cpu_facts() -> dict[str, str]:
    """Return what Linux says of the first core; nothing elsewhere."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
