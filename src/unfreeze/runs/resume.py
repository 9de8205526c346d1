"""The comparison of a resumed run with the run it goes on from: configuration, plan, data and precision."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.config.compose import compose_config
from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import RunDirectory, recorder_state, stage_state
from unfreeze.system.files import shown_path

if TYPE_CHECKING:
    from unfreeze.runs.experiment import Experiment

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
"""Keys and sections. Images are compared by content, wherever they are stored; a time limit starts again."""

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


def check_unchanged(directory: RunDirectory, current: DictConfig) -> None:
    """Refuse to go on with other settings; `check_resumable` compares the plan.

    Raises:
        UnfreezeError: Naming what differs.
    """
    differences = config_differences(_saved(directory), current, with_plan=False)
    if differences:
        raise UnfreezeError(
            f"resume: {'; '.join(differences)}. Resume with the settings and data of the run, or start a new one"
        )


def check_completed_unchanged(directory: RunDirectory, current: DictConfig) -> None:
    """Refuse other settings for a run that has completed, which would do nothing.

    Raises:
        UnfreezeError: Naming what differs, and how to train on from the run's weights.
    """
    differences = config_differences(_saved(directory), current, with_plan=True)
    if differences:
        best = shown_path(directory.best)
        raise UnfreezeError(
            f"resume: {shown_path(directory.path)} has completed, so nothing would train: {'; '.join(differences)}. "
            f"To train on from its weights, start a new run: leave resume out, and type model.weights={best}"
        )


def _saved(directory: RunDirectory) -> DictConfig:
    saved = OmegaConf.load(directory.config_file) if directory.config_file.is_file() else OmegaConf.create()
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


def check_identity(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other data, another model, or another order of the images.

    Raises:
        UnfreezeError: Naming what differs.
    """
    differences = [
        f"{key} was {saved.get(key)!r}, is {current[key]!r}" for key in current if saved.get(key) != current[key]
    ]
    if differences:
        raise UnfreezeError(
            f"resume: {'; '.join(differences)}. Resume with the settings and data of the run, or start a new one"
        )


def check_resumable(experiment: "Experiment", request: DictConfig, directory: RunDirectory) -> int:
    """Return the optimizer step that a run goes on from.

    Args:
        experiment: The run as it would go on.
        request: Its resolved configuration.
        directory: The run.

    Raises:
        UnfreezeError: If the plan, the data, the model or a setting is another than the run's.
    """
    from unfreeze.models.checkpoint import read_checkpoint
    from unfreeze.training.plan.plan import Plan, check_same_plan

    last = directory.last
    if not last.is_file():
        return 0
    try:
        checkpoint = read_checkpoint(last)
    except UnfreezeError as error:
        raise UnfreezeError(f"resume: {error}; {_other_checkpoint(last)}") from None
    check_identity(recorder_state(checkpoint)["identity"], identity_of(experiment))
    check_unchanged(directory, request)
    check_same_plan(Plan.from_dict(stage_state(checkpoint)["plan"]), experiment.plan)
    return int(checkpoint["global_step"])


def _other_checkpoint(last: Path) -> str:
    """Return how to go on where the last checkpoint is broken: from the newest other one that is whole."""
    from unfreeze.models.checkpoint import read_checkpoint

    others = [file for file in last.parent.glob("*.ckpt") if file != last]
    for file in sorted(others, key=lambda each: -each.stat().st_mtime):
        with suppress(UnfreezeError, KeyError):
            checkpoint = read_checkpoint(file)
            return (
                f"{file.name} beside it is whole, of epoch {checkpoint['epoch'] + 1}: copy it to {last} and type "
                f"resume={last.parents[1]} again, which repeats what came after it"
            )
    return "no other checkpoint is whole; start a new run"


def identity_of(experiment: "Experiment") -> dict[str, Any]:
    """Return the facts of a run that a resume must find unchanged beside its plan and its settings."""
    config = experiment.config
    described = experiment.data.describe_splits()["splits"]
    return {
        "data.fingerprint": experiment.data.store.fingerprint,
        **{f"the images of {name}": split["hash"] for name, split in described.items()},
        "data.batch_size": experiment.data.batch_size,
        "data.image_size": experiment.classifier.preprocessing.crop_px,
        "model.name": experiment.classifier.architecture,
        "channels_last": experiment.precision.channels_last,
        "trainer.precision": config.trainer.get("precision"),
    }
