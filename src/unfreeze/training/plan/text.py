"""A plan as text."""

from collections.abc import Sequence

from unfreeze.training.plan.plan import Plan, PlannedStage


def format_plan(plan: Plan, *, augment: str = "none", cached: Sequence[str] = ()) -> str:
    """Return a plan as two tables: the layer groups, and what trains when at which rates.

    Args:
        plan: What to show.
        augment: The run's augmentation, which holds where a stage names none.
        cached: For each stage, up to where its training images would be cached; empty to leave that out.
    """
    groups = [["group", "parameters"], *([group.name, f"{group.parameters:,}"] for group in plan.groups)]
    groups.append(["total", f"{plan.total:,}"])
    header = ["stage", "trains", "parameters", "epochs", "lr (head … deepest)", "schedule", "optimizer", "augment"]
    stages = [header, *(_stage_row(plan, index, augment) for index in range(len(plan.stages)))]
    if cached:
        stages = [[*row, cell] for row, cell in zip(stages, ["cached up to", *cached], strict=True)]
    tail = f"at most {plan.epochs} epochs; each stage starts from the {plan.restore} weights of the one before it"
    return f"{_table(groups, right={1})}\n\n{_table(stages, right={2})}\n\n  {tail}; frozen norms: {plan.frozen_norm}"


def _stage_row(plan: Plan, index: int, augment: str) -> list[str]:
    stage = plan.stages[index]
    return [
        stage.name,
        _trains(plan, index),
        f"{plan.trainable(index):,}",
        _epochs(stage),
        *(("-", "-", "L-BFGS") if stage.solver else _steps(stage)),
        stage.augment or augment,
    ]


def _steps(stage: PlannedStage) -> tuple[str, str, str]:
    warmup = f", warm-up {stage.warmup:.0%}" if stage.warmup else ""
    return format_rates(stage.rates), stage.schedule + warmup, stage.optimizer


def _trains(plan: Plan, index: int) -> str:
    only = plan.stages[index].only
    return _live(plan, index) + (f": {', '.join(only)}" if only else "")


def _live(plan: Plan, index: int) -> str:
    groups = plan.stages[index].groups
    before = plan.stages[index - 1].groups if index else ()
    if len(groups) == len(plan.groups):
        return "all"
    if before and set(before) < set(groups):
        return "+ " + " ".join(name for name in groups if name not in before)
    return " ".join(groups)


def _epochs(stage: PlannedStage) -> str:
    return str(stage.epochs) if stage.patience is None else f"{stage.epochs}, patience {stage.patience}"


def format_rates(rates: Sequence[float]) -> str:
    """Return the rates of the head and of the deepest live group, as in 1e-3 … 1e-5."""
    ends = [f"{rates[0]:.3g}", f"{rates[-1]:.3g}"]
    return ends[0] if len(rates) == 1 or ends[0] == ends[1] else " … ".join(ends)


def _table(rows: Sequence[Sequence[str]], *, right: set[int]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)
