"""The directory of a run: the names of its files, and how they are read and written."""

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.results.result import RESULT_SCHEMA, UNFINISHED
from unfreeze.system.files import read_json, replacing, shown_path, write_csv, write_json

BEST = "best.ckpt"
"""The checkpoint whose metrics are those of a run's result."""

LAST = "last.ckpt"
"""The checkpoint that a run is resumed from."""

RESULT = "result.json"

_RESERVE_BYTES = 1 << 18
_WANTED = "want a run's directory, as train.py leaves it"


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run, of an evaluation or of an average of runs.

    Args:
        path: The directory; it need not exist.
    """

    path: Path

    @classmethod
    def containing(cls, path: Path) -> "RunDirectory | None":
        """Return the run at a path, or the run of a checkpoint; None if there is none."""
        path = path.expanduser().absolute()
        runs = (cls(folder) for folder in (path, *path.parents[:2]))
        return next((run for run in runs if run.splits_file.is_file()), None)

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def overrides_file(self) -> Path:
        """The overrides from the command line."""
        return self.path / "overrides.yaml"

    @property
    def plan_file(self) -> Path:
        """The text that `unfreeze plan` prints."""
        return self.path / "plan.txt"

    @property
    def precision_file(self) -> Path:
        """The precision and memory layout of the run."""
        return self.path / "compute.json"

    @property
    def splits_file(self) -> Path:
        """The images of each split."""
        return self.path / "splits.json"

    @property
    def metrics_file(self) -> Path:
        """A row per validation and epoch."""
        return self.path / "metrics.csv"

    @property
    def stages_file(self) -> Path:
        """A summary per stage."""
        return self.path / "stages.json"

    @property
    def result_file(self) -> Path:
        """The summary that other programs rely on; `results.result` has its schema."""
        return self.path / RESULT

    @property
    def predictions_file(self) -> Path:
        """The logits of validation and test."""
        return self.path / "predictions.npz"

    @property
    def report_file(self) -> Path:
        """The report page."""
        return self.path / "report.html"

    @property
    def log_file(self) -> Path:
        """The log of the run, with tracebacks."""
        return self.path / "train.log"

    @property
    def figures(self) -> Path:
        """The folder of the report's pictures."""
        return self.path / "figures"

    @property
    def evaluations(self) -> Path:
        """The folder of later evaluations."""
        return self.path / "evaluations"

    @property
    def exports(self) -> Path:
        """The folder of the files of `unfreeze export`."""
        return self.path / "exports"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The best checkpoint."""
        return self.checkpoints / BEST

    @property
    def last(self) -> Path:
        """The checkpoint that the run is resumed from."""
        return self.checkpoints / LAST

    @property
    def holds_run(self) -> bool:
        """True if the directory contains files of a run."""
        return any(file.exists() for file in (self.config_file, self.result_file, self.checkpoints))

    def check_is_free(self) -> None:
        """Check that the directory has no run and can be created.

        Raises:
            UnfreezeError: If it has a run or can't be created.
        """
        if self.holds_run:
            raise UnfreezeError(
                f"hydra.run.dir: {str(self.path)!r} holds a run; type resume={shown_path(self.path)} to go on with it, "
                "or name another directory"
            )
        parent = next(folder for folder in [self.path, *self.path.parents] if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UnfreezeError(
                f"hydra.run.dir: can't make {str(self.path)!r}, since {str(parent)!r} is not a folder to write in"
            )

    def check_has_result(self) -> None:
        """Check that the directory has a result.

        Raises:
            UnfreezeError: If it has none.
        """
        if not self.result_file.is_file():
            raise UnfreezeError(f"{self.path}: no {RESULT}; want the directory of a run, as train.py leaves it")

    def read_result(self) -> dict[str, Any]:
        """Return the content of result.json.

        Raises:
            UnfreezeError: If it is missing or incomplete.
        """
        return read_json(self.result_file, keys=("status",))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json atomically."""
        write_json(self.result_file, result)

    def record_failure(self, reason: str, overrides: Sequence[str]) -> None:
        """Write a result that says `failed`, unless the run has written one that it finished itself."""
        left = read_json(self.result_file) if self.result_file.exists() else {}
        if self.path.is_dir() and left.get("reason", UNFINISHED) == UNFINISHED:
            failed = {"status": "failed", "reason": reason, "overrides": list(overrides)}
            self.write_result({"schema": RESULT_SCHEMA, **left, **failed})

    def read_splits(self) -> dict[str, Any]:
        """Return the content of splits.json.

        Raises:
            UnfreezeError: If it is missing or incomplete.
        """
        return read_json(self.splits_file, keys=("fingerprint", "splits"))

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration; empty if there is none.

        Raises:
            UnfreezeError: If the file can't be read.
        """
        if not self.config_file.exists():
            return {}
        try:
            content = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UnfreezeError(f"{self.config_file} can't be read ({reason}); {_WANTED}") from None
        return content if isinstance(content, dict) else {}

    def read_overrides(self) -> list[str]:
        """Return the overrides that the run was started with.

        Raises:
            UnfreezeError: If the directory holds no run.
        """
        if not self.overrides_file.is_file():
            raise UnfreezeError(
                f"resume: no run in {str(self.path)!r}; want the directory of one, such as outputs/<date>/<run>"
            )
        return [str(override) for override in yaml.safe_load(self.overrides_file.read_text(encoding="utf-8")) or []]

    def read_history(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.csv, without empty cells."""
        if not self.metrics_file.is_file():
            return []
        with self.metrics_file.open(newline="", encoding="utf-8") as stream:
            return [{key: _number(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]

    def write_history(self, rows: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv and stages.json, each atomically."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_csv(self.metrics_file, columns, ([row.get(column, "") for column in columns] for row in rows))
        write_json(self.stages_file, list(stages))

    def read_stages(self) -> list[dict[str, Any]]:
        """Return the rows of stages.json; empty if there is no such file."""
        return list(read_json_rows(self.stages_file)) if self.stages_file.is_file() else []

    def reserve_space(self) -> None:
        """Reserve disk space for the files that are written last, so that a full disk can still be reported.

        Raises:
            DiskFullError: If the disk is full.
        """
        with replacing(self._reserve, _RESERVE_BYTES) as building:
            building.write_bytes(os.urandom(_RESERVE_BYTES))

    def release_space(self) -> None:
        """Release the reserved space, right before it is needed."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        return self.path / ".room"


def runs_in(folder: Path) -> list[Path]:
    """Return the directory of a run, or all runs in a folder, by name.

    Raises:
        UnfreezeError: If there are none.
    """
    if RunDirectory(folder).result_file.is_file():
        return [folder]
    runs = sorted(file.parent for file in folder.rglob(RESULT) if "evaluations" not in file.parts)
    if not runs:
        raise UnfreezeError(f"no run in {str(folder)!r}; want a directory with a result.json, as train.py leaves it")
    return runs


def read_json_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON file that holds a list.

    Raises:
        UnfreezeError: If it can't be read.
    """
    import json

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnfreezeError(f"{path} can't be read ({error}); {_WANTED}") from None
    return rows if isinstance(rows, list) else []


def stage_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the staged unfreezing in a checkpoint: its plan, stage and best weights.

    Raises:
        KeyError: If the checkpoint has none.
    """
    state: dict[str, Any] = checkpoint["callbacks"]["StagedUnfreezing"]
    return state


def recorder_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of the recorder in a checkpoint: its rows and the settings that must not change on resume.

    Raises:
        KeyError: If the checkpoint has none.
    """
    state: dict[str, Any] = checkpoint["callbacks"]["RunRecorder"]
    return state


def check_checkpoint(file: Path) -> None:
    """Check that a checkpoint exists.

    Raises:
        UnfreezeError: If it does not exist.
    """
    if not file.is_file():
        raise UnfreezeError(f"no checkpoint {str(file)!r}; want a .ckpt file or the directory of a run that has one")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
