"""benchmarks/RESULTS.md: a section per benchmark, each with its own date, machine and command; rewritten one by one."""

import datetime
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = (
    "# Benchmark results\n\nWritten by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) explains the method.\n"
)
ORDER = (
    *("probe", "last block", "gradual", "finetune", "reach"),
    *(f"accuracy, {task}" for task in ("probe", "last_block", "gradual", "finetune")),
    *("gpu", "head step", "second start", "sweep", "command", "loading", "prediction", "splits"),
)


def publish(
    section: str, lines: Sequence[str], *, versions: dict[str, str] | None = None, file: Path | None = None
) -> None:
    """Print a section, and put it in the place of the one of that name.

    Args:
        section: Its name.
        lines: Markdown.
        versions: Of the packages that took part.
        file: Where it is written; None prints alone.
    """
    body = "\n".join([*lines, "", _origin(versions or {})])
    print(f"\n## {section}\n\n{body}\n", flush=True)
    if file is None:
        return
    text = file.read_text(encoding="utf-8") if file.exists() else TITLE
    sections = dict(re.findall(r"^## ([^\n]+)\n\n(.*?)\n*(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    sections[section] = body
    ordered = sorted(sections, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    file.write_text(TITLE + "".join(f"\n## {name}\n\n{sections[name]}\n" for name in ordered), encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median, with the smallest and the largest behind it."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def machine() -> str:
    """Return the processor, its cores, and the matrix instructions that decide what bf16 is worth."""
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    model = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    features = re.search(r"^(?:flags|Features)\s*: (.*)$", cpu, re.MULTILINE)
    flags = set(features[1].split()) if features else set()
    shown = {"avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
    parts = [name if flag in flags else f"no {name}" for flag, name in shown.items()]
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {', '.join(parts)}"


def _origin(versions: dict[str, str]) -> str:
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folder, sys.argv[1:])])
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    day = datetime.datetime.now(tz=datetime.UTC).date()
    return f"*{day}; {machine()}; {told or f'Python {platform.python_version()}'}*\n\n    {command}"


def _without_folder(argument: str) -> str:
    return Path(argument).name if os.sep in argument else argument
