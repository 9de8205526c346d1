"""The content of a run's directory, for its report."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.predictions import StoredPredictions
from unfreeze.models.checkpoint import read_checkpoint
from unfreeze.results.config_facts import augmentations_of
from unfreeze.results.run_directory import RunDirectory, stage_state
from unfreeze.system.files import read_json


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The content of a run's directory.

    Args:
        directory: The directory.
        result: The content of result.json.
        history: A row per validation and epoch.
        config: The resolved configuration.
        splits: The content of splits.json; empty where there is none.
        plan: The plan as a checkpoint records it; None where there is no checkpoint.
        predictions: The predictions for validation and test; None where the run was not evaluated.
    """

    directory: RunDirectory
    result: dict[str, Any]
    history: list[dict[str, Any]]
    config: dict[str, Any]
    splits: dict[str, Any]
    plan: dict[str, Any] | None
    predictions: StoredPredictions | None

    @property
    def stages(self) -> list[dict[str, Any]]:
        """A row per stage that has begun."""
        rows: list[dict[str, Any]] = self.result.get("stages") or []
        return rows

    @property
    def augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations of the stages, each once."""
        return augmentations_of(self.config)

    def missing_predictions_error(self, split: str) -> UnfreezeError:
        """Return the error for a split without stored predictions, with what to type."""
        folder = self.directory.path
        stored = ", ".join(self.predictions.splits) if self.predictions is not None else ""
        if self.result["status"] != "completed":
            why = f"the run has not completed; unfreeze evaluate {folder} evaluates it as it is"
        elif self.result.get("evaluated"):
            why = "it is an evaluation of one split, which is stored as test"
        elif stored:
            why = f"it has {stored}; unfreeze evaluate {folder} --split {split} evaluates it"
        else:
            why = f"type unfreeze report {folder}"
        return UnfreezeError(f"{folder} has no predictions for {split}: {why}")


def read_record(directory: RunDirectory) -> RunRecord:
    """Return the content of a run's directory.

    Raises:
        UnfreezeError: If it is not a run's directory, or its result can't be read.
    """
    directory.check_has_result()
    predictions = directory.predictions_file
    try:
        config = directory.read_config()
    except UnfreezeError:
        config = {}
    return RunRecord(
        directory=directory,
        result=directory.read_result(),
        history=directory.read_history(),
        config=config,
        splits=read_json(directory.splits_file) if directory.splits_file.is_file() else {},
        plan=_read_plan(directory),
        predictions=StoredPredictions.load(predictions) if predictions.is_file() else None,
    )


def _read_plan(directory: RunDirectory) -> dict[str, Any] | None:
    for file in (directory.last, directory.best):
        with suppress(UnfreezeError, KeyError, TypeError):
            plan: dict[str, Any] = stage_state(read_checkpoint(file))["plan"]
            return plan
    return None
