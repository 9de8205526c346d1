"""The jobs of a multirun, read back from their directories: table, summary.csv, the winner."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError
from unfreeze.results.lock import writing_summary
from unfreeze.results.monitor import Score, mode_of
from unfreeze.system.files import read_json, replacing, write_csv

UNENDED = "it has not ended by itself: killed, or running still"
"""The reason in a result that was written when the run began, and never after."""

_LONG_NUMBER = re.compile(r"[+-]?\d*\.\d{4,}(e[+-]?\d+)?", re.IGNORECASE)
_FIGURES = ("val_acc", "val_loss", "val_f1_macro", "test_acc", "test_f1_macro")


@dataclass(frozen=True)
class Job:
    """One job of a multirun.

    Args:
        number: Its number, the name of its directory.
        folder: Its directory.
        result: The content of its result.json.
    """

    number: int
    folder: Path
    result: dict[str, Any]

    @property
    def status(self) -> str:
        """completed, stopped or failed."""
        return str(self.result["status"])

    @property
    def score(self) -> float | None:
        """The best monitored value; None where the job has none."""
        val, monitor = self.result.get("val"), self.result.get("monitor")
        return val.get(str(monitor).removeprefix("val/")) if val else None

    @property
    def validation(self) -> Score:
        """The best validation of a job that has one."""
        assert self.score is not None
        loss = (self.result.get("val") or {}).get("loss")
        return Score(self.score, math.inf if loss is None else loss)

    def row(self) -> dict[str, Any]:
        """Return the job as a row of summary.csv."""
        val, test = self.result.get("val") or {}, self.result.get("test") or {}
        figures = {f"val_{key}": value for key, value in val.items()}
        figures |= {f"test_{key}": value for key, value in test.items() if not isinstance(value, dict)}
        overrides = dict(override.split("=", 1) for override in self.result.get("overrides", []) if "=" in override)
        return {
            "job": self.number,
            "status": self.status,
            "reason": self.result.get("reason"),
            **overrides,
            **{key: figures.get(key) for key in _FIGURES},
            "best_epoch": (self.result.get("best") or {}).get("epoch"),
            "seconds": self.result.get("seconds"),
            "directory": str(self.folder),
        }


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs of a multirun that have a result, by number."""
    files = (file for file in folder.glob("*/result.json") if file.parent.name.isdigit())
    jobs = [Job(int(file.parent.name), file.parent, read_json(file)) for file in files]
    return sorted(jobs, key=lambda job: job.number)


def holds_multirun(folder: Path) -> bool:
    """Return whether a multirun has been written into a folder."""
    return bool(read_jobs(folder)) or (folder / "summary.csv").exists()


def check_is_free(folder: Path) -> None:
    """Refuse a directory that holds a multirun.

    Raises:
        UnfreezeError: If it does.
    """
    if holds_multirun(folder):
        raise UnfreezeError(f"hydra.sweep.dir: {str(folder)!r} holds a multirun; name another directory")


def record_failure(folder: Path, reason: str, overrides: Sequence[str]) -> None:
    """Leave a result that says `failed` where a job ended before it had one of its own."""
    file = folder / "result.json"
    left = read_json(file) if file.exists() else {}
    if folder.is_dir() and left.get("reason", UNENDED) == UNENDED:
        result = {"schema": 1, **left, "status": "failed", "reason": reason, "overrides": list(overrides)}
        with replacing(file) as building:
            building.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def best_job(jobs: Sequence[Job], monitor: str) -> Job | None:
    """Return the completed job with the best monitored value; of several as good, the one of the lowest loss."""
    best: Job | None = None
    for job in jobs:
        if job.status != "completed" or job.score is None:
            continue
        if job.validation.beats(None if best is None else best.validation, mode_of(monitor)):
            best = job
    return best


def write_summary(folder: Path) -> None:
    """Write summary.csv, whole or not at all."""
    with writing_summary(folder):
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
