"""Stages resolved against the layer groups of a model, with their rates; what does not fit is refused."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from unfreeze.errors import UnfreezeError
from unfreeze.training.plan.plan import Group, Plan, PlannedStage, Rates, Stage, Train
from unfreeze.training.plan.schedules import SCHEDULES


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
        stages: The stages, as in `strategy.stages`.
        groups: Layer groups from the head down.
        rates: Rates of stages that name none.
        schedule: Schedule of stages that name none.
        optimizer: Optimizer of stages that name none.
        restore: Weights of a stage that the next one starts from.
        frozen_norm: Whether frozen norms keep or update their statistics.
        architecture: The model's name, for messages.
        count: Returns the number of trainable parameters of some groups under a stage's `only`; None where no stage
            has one.
        scale: Factor of the rates per optimizer; None for 1.

    Raises:
        UnfreezeError: If a stage names no group, trains nothing, or two of its patterns overlap.
    """
    _check_names(stages)
    wheres = [f"strategy.stages[{index}] {stage.name!r}" for index, stage in enumerate(stages)]
    planned = []
    for where, stage in zip(wheres, stages, strict=True):
        whole = _plan_stage(where, stage, groups, rates, schedule, optimizer, architecture, scale or {})
        planned.append(_narrowed(where, stage, whole, count))
    return Plan(groups=tuple(groups), stages=tuple(planned), restore=restore, frozen_norm=frozen_norm)


def _check_names(stages: Sequence[Stage]) -> None:
    if not stages:
        raise UnfreezeError("strategy.stages: the list is empty; want at least [{name: head, train: 1, epochs: 3}]")
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise UnfreezeError(f"strategy.stages: two stages are called {name!r}; give each its own name")


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
    """Return a stage restricted to the parameters that `only` names."""
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
