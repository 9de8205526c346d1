"""Limits that end a run before its stages do: epochs and steps shorten the plan, time stops the run."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from unfreeze.training.plan.plan import Plan


def cut_plan(plan: Plan, epochs: int) -> Plan:
    """Return the plan that ends after some epochs; a shortened stage follows its schedule up to there.

    Args:
        plan: The whole plan.
        epochs: The most epochs of all stages together, >= 1.
    """
    stages, left = [], epochs
    for stage in plan.stages:
        if left > 0:
            is_cut = stage.epochs > left
            stages.append(replace(stage, epochs=left, schedule_epochs=stage.epochs) if is_cut else stage)
        left -= stage.epochs
    return replace(plan, stages=tuple(stages))


def epochs_of_steps(steps: int, *, batches_per_epoch: int, batches_per_step: int = 1) -> int:
    """Return the number of epochs in which a number of optimizer steps is reached, the last one perhaps in part.

    Args:
        steps: Optimizer steps, >= 1.
        batches_per_epoch: Batches of each rank, >= 1.
        batches_per_step: `accumulate_grad_batches`; the last step of an epoch may have fewer.
    """
    return math.ceil(steps / math.ceil(batches_per_epoch / batches_per_step))


def parse_max_time(value: Any) -> timedelta | None:
    """Return a Trainer's `max_time`: DD:HH:MM:SS, or the arguments of a timedelta.

    Raises:
        ValueError: If it is neither.
    """
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, Mapping):
        return timedelta(**value)
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", str(value).strip())
    if found is None:
        raise ValueError(f"max_time: got {value!r}, want days, hours, minutes and seconds, such as 00:01:30:00")
    days, hours, minutes, seconds = map(int, found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
