"""The summary of a sweep: summary.csv, and the table of its jobs."""

import re
from collections.abc import Sequence
from pathlib import Path

from unfreeze.results.lock import summary_lock
from unfreeze.results.sweep_directory import Job, read_jobs
from unfreeze.system.files import write_csv

_LONG_NUMBER = re.compile(r"[+-]?\d*\.\d{4,}(e[+-]?\d+)?", re.IGNORECASE)


def write_summary(folder: Path) -> None:
    """Write summary.csv, whole or not at all."""
    with summary_lock(folder):
        rows = [job.row() for job in read_jobs(folder)]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_csv(folder / "summary.csv", columns, ([row.get(column, "") for column in columns] for row in rows))


def format_jobs(jobs: Sequence[Job], folder: Path) -> str:
    """Return a table of all jobs, with the reasons of those that failed."""
    shared = _shared_overrides(jobs)
    rows = [["job", "status", "val/acc", "test/acc", "time", "overrides"]]
    for job in jobs:
        row = job.row()
        own = [shortened(override) for override in job.result.get("overrides", []) if override not in shared]
        figures = [f"{row[key]:.3f}" if row.get(key) is not None else "-" for key in ("val_acc", "test_acc")]
        seconds = f"{row['seconds']:.0f} s" if row["seconds"] is not None else "-"
        rows.append([f"#{job.number}", job.status, *figures, seconds, " ".join(own)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    reasons = [f"  #{job.number} {job.status}: {job.result.get('reason')}" for job in jobs if job.status != "completed"]
    return "\n".join(["", *lines, *reasons, "", f"  {folder / 'summary.csv'}"])


def shortened(override: str) -> str:
    """Return an override whose number has four digits at most, as a search draws sixteen of them."""
    key, separator, value = override.partition("=")
    return f"{key}={float(value):.4g}" if separator and _LONG_NUMBER.fullmatch(value) else override


def _shared_overrides(jobs: Sequence[Job]) -> set[str]:
    lists = [set(job.result.get("overrides", [])) for job in jobs]
    return set.intersection(*lists) if len(lists) > 1 else set()
