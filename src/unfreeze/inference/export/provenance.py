"""What a run has left that a model card tells: figures, data, stages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unfreeze.errors import UnfreezeError, first_line
from unfreeze.evaluation.record import augmentations_of, data_name
from unfreeze.results.run_directory import BEST
from unfreeze.system.files import read_json


@dataclass(frozen=True)
class Provenance:
    """Where a classifier comes from.

    Args:
        data: What the images are called; None where that is not known.
        splits: Per split, as splits.json has them: count, classes.
        fingerprint: Of the images and labels; None where that is not known.
        result: What result.json says, as far as it is said of this checkpoint; empty where there is none.
        settings: What the run was asked, in a few words each: strategy, augmentation, optimizer, loss.
        is_best: Whether it is the checkpoint that the figures of a run are those of.
    """

    data: str | None = None
    splits: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    is_best: bool = True

    @property
    def test(self) -> dict[str, Any] | None:
        """The figures of the test; None where there was none."""
        return self.result.get("test")

    @property
    def stages(self) -> list[dict[str, Any]]:
        """What trained, in order."""
        return self.result.get("stages") or []


def read_provenance(run_dir: Path | None, checkpoint: Path) -> Provenance:
    """Return what a run says of a checkpoint.

    Args:
        run_dir: Its directory; None for a checkpoint that lies alone.
        checkpoint: One of its checkpoints; figures of the run are told of the best alone.

    Raises:
        UnfreezeError: If a file of the run is there and can't be read.
    """
    if run_dir is None:
        return Provenance()
    config = _read_yaml(run_dir / "config.yaml")
    splits = _read_if_there(run_dir / "splits.json")
    is_best = checkpoint.name == BEST
    result = _read_if_there(run_dir / "result.json") if is_best else {}
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
    return Provenance(
        data=data_name(config["data"]) if config.get("data") else None,
        splits=splits.get("splits") or {},
        fingerprint=splits.get("fingerprint"),
        result=result,
        settings={**settings, **({"augmentation": ", ".join(augmentations)} if augmentations else {})},
        is_best=is_best,
    )


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{file} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    return content if isinstance(content, dict) else {}
