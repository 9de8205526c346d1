"""The directory of a sweep: its jobs and their results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.errors import UnfreezeError
from unfreeze.results.monitor import Score, mode_of
from unfreeze.results.run_directory import RunDirectory
from unfreeze.system.files import read_json

_METRICS = ("val_acc", "val_loss", "val_f1_macro", "test_acc", "test_f1_macro")


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
        """The status: completed, stopped or failed."""
        return str(self.result["status"])

    @property
    def score(self) -> float | None:
        """The best monitored value; None if there is none."""
        val, monitor = self.result.get("val"), self.result.get("monitor")
        return val.get(str(monitor).removeprefix("val/")) if val else None

    @property
    def validation(self) -> Score:
        """The score of the best validation; `score` must not be None."""
        assert self.score is not None
        loss = (self.result.get("val") or {}).get("loss")
        return Score(self.score, math.inf if loss is None else loss)

    def row(self) -> dict[str, Any]:
        """Return the job as a row of summary.csv."""
        val, test = self.result.get("val") or {}, self.result.get("test") or {}
        metrics = {f"val_{key}": value for key, value in val.items()}
        metrics |= {f"test_{key}": value for key, value in test.items() if not isinstance(value, dict)}
        overrides = dict(override.split("=", 1) for override in self.result.get("overrides", []) if "=" in override)
        return {
            "job": self.number,
            "status": self.status,
            "reason": self.result.get("reason"),
            **overrides,
            **{key: metrics.get(key) for key in _METRICS},
            "best_epoch": (self.result.get("best") or {}).get("epoch"),
            "seconds": self.result.get("seconds"),
            "directory": str(self.folder),
        }


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs of a multirun that have a result, by number."""
    files = (RunDirectory(job).result_file for job in folder.glob("*/") if job.name.isdigit())
    jobs = [Job(int(file.parent.name), file.parent, read_json(file)) for file in files if file.exists()]
    return sorted(jobs, key=lambda job: job.number)


def holds_multirun(folder: Path) -> bool:
    """Return whether a folder has files of a multirun."""
    return bool(read_jobs(folder)) or (folder / "summary.csv").exists()


def check_is_free(folder: Path) -> None:
    """Check that a directory has no multirun.

    Raises:
        UnfreezeError: If it has one.
    """
    if holds_multirun(folder):
        raise UnfreezeError(f"hydra.sweep.dir: {str(folder)!r} holds a multirun; name another directory")


def best_job(jobs: Sequence[Job], monitor: str) -> Job | None:
    """Return the completed job with the best monitored value; ties are broken by the loss."""
    best: Job | None = None
    for job in jobs:
        if job.status != "completed" or job.score is None:
            continue
        if job.validation.beats(None if best is None else best.validation, mode_of(monitor)):
            best = job
    return best
