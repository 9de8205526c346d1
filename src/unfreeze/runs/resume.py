"""The settings that a resumed run must share with what it was started with: all but those that change no weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.errors import UnfreezeError
from unfreeze.runs.announce import shown_path

MAY_CHANGE = (
    *("resume", "logger", "report", "test", "experiment", "sweep", "hydra"),
    *("cache.dir", "cache.gb", "data.root", "data.csv", "data.download"),
    *("data.num_workers", "data.store", "data.store_gb"),
    *(
        "trainer.accelerator",
        "trainer.strategy",
        "trainer.max_time",
        "trainer.log_every_n_steps",
        "trainer.limit_test_batches",
    ),
    *("trainer.profiler", "trainer.detect_anomaly"),
)
"""Keys and sections. Images are compared by content, wherever they lie; a limit of time counts anew."""

_OF_PLAN = ("strategy", "optimizer.name", "optimizer.schedule", "optimizer.lr_batch")
_LIMITS = ("trainer.max_epochs", "trainer.max_steps")
"""What the plan is made of; of a run that goes on, it is the plan that is compared."""

_SETTLED = ("trainer.precision",)
"""Compared as it was settled, not as it was typed."""

_KEPT_CALLBACK = "callbacks.average"
"""Of the callbacks, the one that changes weights."""


def config_differences(saved: DictConfig, current: DictConfig, *, with_plan: bool) -> list[str]:
    """Return how two configurations differ in what must be the same, a phrase each.

    Args:
        saved: Of the run; keys that it lacks are newer than it, and have their default.
        current: Composed now; keys that it lacks are no more.
        with_plan: Whether to compare what the plan is made of, too.
    """
    skipped = (*MAY_CHANGE, *_SETTLED, *(() if with_plan else (*_OF_PLAN, *_LIMITS)))
    before = dict(_flattened(saved))
    now = {key: value for key, value in _flattened(current) if _must_stay(key, skipped)}
    # What stood in a mapping that is empty now is gone; sections that are gone were renamed or removed.
    gone = [key for key in before if key not in now and any(key.startswith(f"{leaf}.") for leaf in now)]
    now |= {key: None for key in (*gone, _KEPT_CALLBACK) if key not in now}
    if now.keys() - before.keys():
        from unfreeze.config.compose import compose_config

        defaults = dict(_flattened(compose_config([])))
        before |= {key: defaults.get(key) for key in now.keys() - before.keys()}
    differing = [key for key in now if not _is_same(key, before[key], now[key])]
    # A preset has a name, which says it all.
    named = {key.removesuffix("name") for key in differing if key.endswith(".name")}
    return [
        f"{key.removesuffix('.name')} was {before[key]!r}, is {_alike(now[key], before[key])!r}"
        for key in differing
        if key.endswith(".name") or not any(key.startswith(section) for section in named)
    ]


def _must_stay(key: str, skipped: tuple[str, ...]) -> bool:
    return _is_of(key, (_KEPT_CALLBACK,)) or not _is_of(key, (*skipped, "callbacks"))


def check_unchanged(run_dir: Path, current: DictConfig) -> None:
    """Refuse to go on with other settings; the plan is compared apart.

    Raises:
        UnfreezeError: Naming what differs.
    """
    differences = config_differences(_saved(run_dir), current, with_plan=False)
    if differences:
        raise UnfreezeError(
            f"resume: {'; '.join(differences)}. Resume with the settings and data of the run, or start a new one"
        )


def check_completed_unchanged(run_dir: Path, current: DictConfig) -> None:
    """Refuse other settings for a run that has completed, which would do nothing.

    Raises:
        UnfreezeError: Naming what differs, and how to train on from the run's weights.
    """
    differences = config_differences(_saved(run_dir), current, with_plan=True)
    if differences:
        best = shown_path(run_dir / "checkpoints" / "best.ckpt")
        raise UnfreezeError(
            f"resume: {shown_path(run_dir)} has completed, so nothing would train: {'; '.join(differences)}. "
            f"To train on from its weights, start a new run: leave resume out, and type model.weights={best}"
        )


def _saved(run_dir: Path) -> DictConfig:
    saved = OmegaConf.load(run_dir / "config.yaml") if (run_dir / "config.yaml").is_file() else OmegaConf.create()
    assert isinstance(saved, DictConfig)
    return saved


def _flattened(config: DictConfig) -> Iterator[tuple[str, Any]]:
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    yield from _leaves(values, "")


def _leaves(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" != _KEPT_CALLBACK:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_of(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _is_same(key: str, before: Any, now: Any) -> bool:
    if key == "model.weights" and isinstance(before, str) and isinstance(now, str):
        return PurePath(before).name == PurePath(now).name  # a file may have been moved
    return bool(before == now)


def _alike(value: Any, like: Any) -> Any:
    return float(value) if isinstance(like, float) and type(value) is int else value
