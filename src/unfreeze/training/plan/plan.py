"""The plan of a run: which layer groups train in which stage, and at which rates.

A plan is a pure value. It needs no model and no trainer, prints itself, and travels in the checkpoint.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
        freeze_below: Groups whose factor is smaller than this stay frozen; null for none.
    """

    head: float
    decay: float = 1.0
    floor: float = 0.0
    groups: GroupRates | None = None
    freeze_below: float | None = None


@dataclass(frozen=True)
class Stage:
    """One stage as a person writes it.

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
    """One stage against a model: the live groups from the head down and the peak rate of each.

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


def resolve_plan(
    stages: Sequence[Stage],
    groups: Sequence[Group],
    *,
    rates: Rates,
    schedule: str = "cosine",
    optimizer: str = "adamw",
    restore: Literal["best", "last"] = "best",
    frozen_norm: Literal["eval", "train"] = "eval",
    architecture: str = "the model",
    count: Callable[[Collection[str], Collection[str]], int] | None = None,
    scale: Mapping[str, float] | None = None,
) -> Plan:
    """Return the plan of some stages over a model's groups.

    Args:
        stages: What a person asked for.
        groups: Layer groups from the head down.
        rates: Rates that hold where a stage names none.
        schedule: Schedule that holds where a stage names none.
        optimizer: Optimizer that holds where a stage names none.
        restore: Which weights of a stage the next one starts from.
        frozen_norm: What frozen normalisation layers do.
        architecture: The model's name, for messages.
        count: Returns the number of parameters of some groups that a stage's `only` lets train, 0 where it names none;
            None where no stage has one.
        scale: What rates are multiplied by, for each optimizer; None for one.

    Raises:
        UnfreezeError: If a stage names no group, trains nothing, or two of its patterns overlap.
    """
    if not stages:
        raise UnfreezeError("strategy.stages: the list is empty; want at least [{name: head, train: 1, epochs: 3}]")
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise UnfreezeError(f"strategy.stages: two stages are called {name!r}; give each its own name")
    wheres = [f"strategy.stages[{index}] {stage.name!r}" for index, stage in enumerate(stages)]
    planned = tuple(
        _narrowed(
            where,
            stage,
            _plan_stage(where, stage, groups, rates, schedule, optimizer, architecture, scale or {}),
            count,
        )
        for where, stage in zip(wheres, stages, strict=True)
    )
    return Plan(groups=tuple(groups), stages=planned, restore=restore, frozen_norm=frozen_norm)


def _plan_stage(
    where: str,
    stage: Stage,
    groups: Sequence[Group],
    rates: Rates,
    schedule: str,
    optimizer: str,
    architecture: str,
    scale: Mapping[str, float],
) -> PlannedStage:
    _check_stage(where, stage, schedule)
    available = [group.name for group in groups]
    live = _select_groups(where, stage.train, available, architecture)
    stage_rates = _stage_rates(rates, stage.lr)
    peaks = group_rates(where, stage_rates, available, architecture)
    if stage_rates.freeze_below is not None:
        threshold = stage_rates.head * stage_rates.freeze_below
        live = [name for name in live if peaks[name] >= threshold]
    live = [name for name in live if peaks[name] > 0]
    if not live or not sum(group.parameters for group in groups if group.name in live):
        raise UnfreezeError(
            f"{where}: trains nothing (train: {stage.train!r}). "
            f"Want a number from 1 to {len(available)}, 'all', or groups of {architecture}: {' '.join(available)}"
        )
    if stage.solver is not None:
        _check_solver(where, stage, live, available[0])
    factor = scale.get(stage.optimizer or optimizer, 1.0)
    return PlannedStage(
        name=stage.name,
        groups=tuple(live),
        rates=tuple(peaks[name] * factor for name in live),
        epochs=stage.epochs,
        patience=stage.patience,
        warmup=stage.warmup,
        schedule=stage.schedule or schedule,
        optimizer=stage.optimizer or optimizer,
        augment=stage.augment,
        solver=stage.solver,
    )


def _narrowed(
    where: str,
    stage: Stage,
    planned: PlannedStage,
    count: Callable[[Collection[str], Collection[str]], int] | None,
) -> PlannedStage:
    """Return a stage of which some parameters alone train, where it says so."""
    if stage.only is None:
        return planned
    only = (stage.only,) if isinstance(stage.only, str) else tuple(stage.only)
    for pattern in only:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UnfreezeError(f"{where}: only: {pattern!r} is not a pattern ({error})") from None
    for pattern in only:
        if count is not None and not count(planned.groups, (pattern,)):
            raise UnfreezeError(
                f"{where}: only: {pattern!r} is no parameter of a group that trains below the head; want norms, "
                "biases, or patterns of names such as 'layer4[.]1[.].*'"
            )
    return replace(planned, only=only, trainable=None if count is None else count(planned.groups, only))


def _check_solver(where: str, stage: Stage, live: Sequence[str], head: str) -> None:
    """Refuse what has no meaning where a head is solved at once."""
    if list(live) != [head]:
        raise UnfreezeError(f"{where}: solver lbfgs solves the head alone; want train: 1, got {stage.train!r}")
    given = {"epochs": stage.epochs != 1, "patience": stage.patience is not None, "warmup": stage.warmup != 0}
    given |= {key: getattr(stage, key) is not None for key in ("lr", "schedule", "optimizer", "only")}
    meaningless = [key for key, is_given in given.items() if is_given]
    if meaningless:
        raise UnfreezeError(
            f"{where}: {', '.join(meaningless)} beside solver lbfgs, which solves the head in one epoch; "
            "want {name: head, train: 1, epochs: 1, augment: none, solver: lbfgs}"
        )


def _check_stage(where: str, stage: Stage, schedule: str) -> None:
    """Refuse values that a stage written in Python may hold; the schema has refused those that were typed."""
    if stage.epochs < 1:
        raise UnfreezeError(f"{where}: epochs is {stage.epochs}; want 1 or more")
    if not 0 <= stage.warmup < 1:
        raise UnfreezeError(f"{where}: warmup is {stage.warmup}; want a share of the stage from 0 to below 1")
    if (stage.schedule or schedule) not in SCHEDULES:
        raise UnfreezeError(f"{where}: no schedule {stage.schedule or schedule!r}; want one of {', '.join(SCHEDULES)}")
    if isinstance(stage.lr, Mapping) and not stage.lr.keys() <= set(Rates.__dataclass_fields__):
        raise UnfreezeError(f"{where}: lr has {', '.join(stage.lr)}; want {', '.join(Rates.__dataclass_fields__)}")


def _select_groups(where: str, train: Train, available: list[str], architecture: str) -> list[str]:
    if train == "all":
        return list(available)
    if isinstance(train, int):
        if not 1 <= train <= len(available):
            raise UnfreezeError(
                f"{where}: train is {train}, but {architecture} has {len(available)} groups: {' '.join(available)}. "
                f"Want a number from 1 to {len(available)} or 'all'"
            )
        return available[:train]
    patterns = [train] if isinstance(train, str) else list(train)
    chosen = _match(f"{where}", patterns, available, architecture)
    return [name for name in available if name in chosen]


def _match(where: str, patterns: Iterable[str], available: list[str], architecture: str) -> dict[str, str]:
    """Return which pattern matches each group; each pattern matches some, no group is matched twice."""
    matched: dict[str, str] = {}
    for pattern in patterns:
        try:
            names = [name for name in available if name == pattern or re.fullmatch(pattern, name)]
        except re.error as error:
            raise UnfreezeError(f"{where}: {pattern!r} is not a pattern ({error})") from None
        if not names:
            raise UnfreezeError(
                f"{where}: no group matches {pattern!r}. Groups of {architecture}: {' '.join(available)}"
            )
        for name in names:
            if name in matched:
                raise UnfreezeError(f"{where}: {matched[name]!r} and {pattern!r} both match {name!r}; keep one of them")
            matched[name] = pattern
    return matched


def _stage_rates(rates: Rates, change: float | Mapping[str, Any] | None) -> Rates:
    if change is None:
        return rates
    if isinstance(change, Mapping):
        return replace(rates, **change)
    return replace(rates, head=float(change))


def group_rates(where: str, rates: Rates, available: list[str], architecture: str) -> dict[str, float]:
    """Return the peak rate of each group, from the head down."""
    peaks = {name: rates.head * max(rates.decay**depth, rates.floor) for depth, name in enumerate(available)}
    if isinstance(rates.groups, Mapping):
        for name, pattern in _match(f"{where}, lr.groups", rates.groups, available, architecture).items():
            peaks[name] = float(rates.groups[pattern])
    elif rates.groups:
        if len(rates.groups) > len(available):
            raise UnfreezeError(
                f"{where}, lr.groups: {len(rates.groups)} rates for {len(available)} groups of {architecture}: "
                f"{' '.join(available)}"
            )
        tail = [rates.groups[-1]] * (len(available) - len(rates.groups))
        peaks = dict(zip(available, [*map(float, rates.groups), *map(float, tail)], strict=True))
    return peaks


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
