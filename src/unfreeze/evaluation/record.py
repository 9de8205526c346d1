"""A run's directory, read back."""

import csv
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.predictions import PREDICTIONS_FILE, KeptPredictions
from unfreeze.results.run_directory import best_of, last_of
from unfreeze.system.files import read_json
from unfreeze.training.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run has left.

    Args:
        folder: Its directory.
        result: The content of result.json.
        history: A row per epoch.
        config: What was asked, resolved.
        splits: The content of splits.json; empty where there is none.
        plan: What was planned; None where no checkpoint was reached.
        predictions: The answers for validation and test; None where the run was not judged.
    """

    folder: Path
    result: dict[str, Any]
    history: list[dict[str, Any]]
    config: dict[str, Any]
    splits: dict[str, Any]
    plan: Plan | None
    predictions: KeptPredictions | None

    @property
    def stages(self) -> list[dict[str, Any]]:
        """A row per stage that has begun."""
        rows: list[dict[str, Any]] = self.result.get("stages") or []
        return rows

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What images were augmented by, as `augmentations_of` has it."""
        return augmentations_of(self.config)

    def lacks(self, split: str) -> UnfreezeError:
        """Return what is to be said where no answers are kept for a split, and what helps."""
        there = ", ".join(self.predictions.splits) if self.predictions is not None else ""
        if self.result["status"] != "completed":
            why = f"it has not ended by itself; unfreeze evaluate {self.folder} judges it as it is"
        elif self.result.get("evaluated"):
            why = "it is an evaluation of one split, which stands as test"
        elif there:
            why = f"it has {there}; unfreeze evaluate {self.folder} --split {split} judges it"
        else:
            why = f"type unfreeze report {self.folder}"
        return UnfreezeError(f"{self.folder} has kept no answers for {split}: {why}")


def augmentations_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the augmentations of a run's stages, each once, in order; empty where that is not known.

    Args:
        config: What was asked, resolved.
    """
    stages, own = (config.get("strategy") or {}).get("stages") or [], (config.get("augment") or {}).get("name")
    names = [stage.get("augment") or own for stage in stages]
    return tuple(dict.fromkeys(str(name) for name in names if name is not None))


def read_record(folder: Path) -> RunRecord:
    """Return what a run's directory holds.

    Raises:
        UnfreezeError: If it is none, or its result can't be read.
    """
    if not (folder / "result.json").is_file():
        raise UnfreezeError(f"{folder}: no result.json; want the directory of a run, as train.py leaves it")
    kept = folder / PREDICTIONS_FILE
    return RunRecord(
        folder=folder,
        result=read_json(folder / "result.json", keys=("status",)),
        history=read_history(folder),
        config=_read_config(folder / "config.yaml"),
        splits=read_json(folder / "splits.json") if (folder / "splits.json").is_file() else {},
        plan=_read_plan(folder),
        predictions=KeptPredictions.load(kept) if kept.is_file() else None,
    )


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return a row per epoch that has ended, from metrics.csv; cells that were empty are left out."""
    file = folder / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [{key: _number(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _read_config(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def data_name(data: Mapping[str, Any]) -> str:
    """Return what a person would call the images of a run: the name of their folder or table, not where it lies.

    Args:
        data: The `data` part of its configuration.
    """
    if data.get("csv"):
        return Path(str(data["csv"])).stem
    return Path(str(data["root"])).name if data.get("root") else str(data.get("name", "images"))


def _read_plan(run_dir: Path) -> Plan | None:
    from unfreeze.models.checkpoint import read_checkpoint

    for file in (last_of(run_dir), best_of(run_dir)):
        with suppress(UnfreezeError, KeyError, TypeError):
            return Plan.from_dict(read_checkpoint(file)["callbacks"]["StagedUnfreezing"]["plan"])
    return None
