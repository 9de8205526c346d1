"""The plan of a run: which layer groups train in which stage, and at which rates.

A plan is a pure value. It needs no model and no trainer, prints itself, and travels in the checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from unfreeze.errors import UnfreezeError
from unfreeze.training.plan.schedules import SCHEDULES

Train = int | Sequence[str] | str
GroupRates = Mapping[str, float] | Sequence[float]


@dataclass(frozen=True)
class Group:
    """A layer group of a model: its name and its number of parameters."""

    name: str
    parameters: int


@dataclass(frozen=True)
class Rates:
    """Learning rates by depth: `head * max(decay ** depth, floor)`, depth counted from the head.

    Args:
        head: Rate of the head, > 0.
        decay: Factor from one group to the next deeper one, in (0, 1].
        floor: Smallest factor, in [0, 1].
        groups: Rates that override the rule: by name or fullmatch pattern, or a list from the head down
            whose last value goes on to the deepest group.
        freeze_below: Groups with a rate below this share of the head's rate stay frozen; null for none.
    """

    head: float
    decay: float = 1.0
    floor: float = 0.0
    groups: GroupRates | None = None
    freeze_below: float | None = None


@dataclass(frozen=True)
class Stage:
    """One stage, as in `strategy.stages`.

    Args:
        name: What the stage is called in every picture and table.
        train: A number of groups counted from the head, group names or fullmatch patterns, or "all".
        epochs: The most epochs that it lasts, >= 1.
        patience: Ends the stage after so many validations without improvement; null for never.
        warmup: Share of the stage's steps in which the rates rise linearly, in [0, 1).
        lr: Rate of the head in this stage, or the fields of `Rates` to change in it.
        schedule: A name out of `SCHEDULES`; null for the run's.
        optimizer: Name of another optimizer for this stage; null for the run's.
        augment: Name of another augmentation for this stage; null for the run's.
        solver: "lbfgs" for a head that is solved instead of trained step by step; it has no rate.
        only: What trains of the groups below the head: "norms", "biases", or fullmatch patterns of parameters' names;
            null for everything.
    """

    name: str
    train: Train
    epochs: int
    patience: int | None = None
    warmup: float = 0.0
    lr: float | Mapping[str, Any] | None = None
    schedule: str | None = None
    optimizer: str | None = None
    augment: str | None = None
    solver: Literal["lbfgs"] | None = None
    only: str | Sequence[str] | None = None


@dataclass(frozen=True)
class PlannedStage:
    """One stage resolved against a model: the live groups from the head down and their peak rates.

    `trainable` is the number of parameters that train where `only` leaves some out; `schedule_epochs` is what the
    schedule spans where a limit cuts the stage, None for its epochs.
    """

    name: str
    groups: tuple[str, ...]
    rates: tuple[float, ...]
    epochs: int
    patience: int | None
    warmup: float
    schedule: str
    optimizer: str
    augment: str | None
    solver: Literal["lbfgs"] | None = None
    only: tuple[str, ...] | None = None
    trainable: int | None = None
    schedule_epochs: int | None = None

    @property
    def horizon(self) -> int:
        """The number of epochs that the schedule spans."""
        return self.schedule_epochs or self.epochs


@dataclass(frozen=True)
class Plan:
    """Resolved groups and stages; hashable, and equal to another plan that would train the same way."""

    groups: tuple[Group, ...]
    stages: tuple[PlannedStage, ...]
    restore: Literal["best", "last"] = "best"
    frozen_norm: Literal["eval", "train"] = "eval"
    _peaks: tuple[dict[str, float], ...] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        peaks = tuple(dict(zip(stage.groups, stage.rates, strict=True)) for stage in self.stages)
        object.__setattr__(self, "_peaks", peaks)

    @property
    def epochs(self) -> int:
        """The most epochs that all stages last together."""
        return sum(stage.epochs for stage in self.stages)

    @cached_property
    def total(self) -> int:
        """The number of parameters of all groups."""
        return sum(group.parameters for group in self.groups)

    def trainable(self, stage: int) -> int:
        """Return the number of parameters that train in a stage."""
        counted = self.stages[stage].trainable
        if counted is not None:
            return counted
        live = set(self.stages[stage].groups)
        return sum(group.parameters for group in self.groups if group.name in live)

    def lr(self, group: str, stage: int, progress: float) -> float:
        """Return the learning rate of a group.

        Args:
            group: A group's name; one that is frozen in the stage, or solved, gets 0.
            stage: Index of the stage.
            progress: Share of the stage that is done, in [0, 1]; steps count at their middle.
        """
        return self.rates(stage, progress).get(group, 0.0)

    def rates(self, stage: int, progress: float) -> dict[str, float]:
        """Return the learning rate of each live group, as `lr` has them."""
        factor = 0.0 if self.stages[stage].solver else self.multiplier(stage, progress)
        return {group: peak * factor for group, peak in self._peaks[stage].items()}

    def multiplier(self, stage: int, progress: float) -> float:
        """Return what warm-up and schedule make of the peak rates, the same for every group of the stage."""
        planned = self.stages[stage]
        warmup = min(1.0, progress / planned.warmup) if planned.warmup else 1.0
        return warmup * SCHEDULES[planned.schedule](progress)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `from_dict` makes an equal plan."""
        return {
            "groups": [asdict(group) for group in self.groups],
            "stages": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(stage).items()}
                for stage in self.stages
            ],
            "restore": self.restore,
            "frozen_norm": self.frozen_norm,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """Return the plan that `to_dict` described."""
        return cls(
            groups=tuple(Group(**group) for group in values["groups"]),
            stages=tuple(_planned(stage) for stage in values["stages"]),
            restore=values["restore"],
            frozen_norm=values["frozen_norm"],
        )


def _planned(values: Mapping[str, Any]) -> PlannedStage:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return PlannedStage(**plain)


def plan_differences(old: Plan, new: Plan) -> list[str]:
    """Return what differs between two plans, a phrase each."""
    differences = [
        f"{key} was {getattr(old, key)!r}, is {getattr(new, key)!r}"
        for key in ("groups", "restore", "frozen_norm")
        if getattr(old, key) != getattr(new, key)
    ]
    if len(old.stages) != len(new.stages):
        differences.append(f"{len(old.stages)} stages became {len(new.stages)}")
    for before, after in zip(old.stages, new.stages, strict=False):
        before_values, after_values = asdict(before), asdict(after)
        differences += [
            f"stage {before.name!r}: {key} was {before_values[key]!r}, is {after_values[key]!r}"
            for key in before_values
            if before_values[key] != after_values[key]
        ]
    return differences


def check_same_plan(saved: Plan, current: Plan) -> None:
    """Refuse to resume a run with another plan.

    Raises:
        UnfreezeError: Naming what differs.
    """
    if saved != current:
        raise UnfreezeError(
            f"resume: the plan has changed: {'; '.join(plan_differences(saved, current))}. "
            "Resume without these overrides, or start a new run"
        )
