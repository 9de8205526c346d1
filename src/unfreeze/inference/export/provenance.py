"""Facts about a run for a model card: metrics, data, stages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfreeze.results.config_facts import augmentations_of, data_name
from unfreeze.results.run_directory import BEST, RunDirectory
from unfreeze.system.files import read_json


@dataclass(frozen=True)
class Provenance:
    """The run that a classifier comes from.

    Args:
        data: Name of the data; None if unknown.
        splits: The splits as in splits.json: count and classes of each.
        fingerprint: Hash of images and labels; None if unknown.
        result: The content of result.json; empty for any other than the best checkpoint.
        settings: Main settings of the run: strategy, augmentation, optimizer, loss.
        is_best: True for the best checkpoint, to which the metrics of the run belong.
    """

    data: str | None = None
    splits: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    is_best: bool = True

    @property
    def test(self) -> dict[str, Any] | None:
        """The test metrics; None without a test."""
        return self.result.get("test")

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages, in order."""
        return self.result.get("stages") or []


def read_provenance(run: RunDirectory | None, checkpoint: Path) -> Provenance:
    """Return the facts about a checkpoint that its run records.

    Args:
        run: The run; None for a checkpoint outside of a run.
        checkpoint: One of its checkpoints; only the best has metrics.

    Raises:
        UnfreezeError: If a file of the run exists and can't be read.
    """
    if run is None:
        return Provenance()
    config = run.read_config()
    splits = read_json(run.splits_file) if run.splits_file.exists() else {}
    is_best = checkpoint.name == BEST
    result = read_json(run.result_file) if is_best and run.result_file.exists() else {}
    return Provenance(
        data=data_name(config["data"]) if config.get("data") else None,
        splits=splits.get("splits") or {},
        fingerprint=splits.get("fingerprint"),
        result=result,
        settings=_settings(config),
        is_best=is_best,
    )


def _settings(config: dict[str, Any]) -> dict[str, str]:
    settings = {
        title: str(_part(config, group).get(key))
        for title, group, key in (
            ("strategy", "strategy", "name"),
            ("loss", "objective", "loss"),
            ("optimizer", "optimizer", "name"),
            ("batch size", "data", "batch_size"),
        )
        if _part(config, group).get(key) is not None
    }
    augmentations = augmentations_of(config)
    return settings | ({"augmentation": ", ".join(augmentations)} if augmentations else {})


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
