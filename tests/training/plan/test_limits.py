"""Plans that a limit cuts, by arithmetic."""

from datetime import timedelta

import pytest

from unfreeze.training.plan.limits import cut_plan, epochs_of_steps, parse_max_time
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage
from unfreeze.training.plan.resolve import resolve_plan

PLAN = resolve_plan(
    [Stage("head", 1, 3), Stage("block", 2, 4, patience=2), Stage("all", "all", 5)],
    [Group("head", 10), Group("layer4", 100), Group("stem", 50)],
    rates=Rates(head=1e-2, decay=0.1, floor=0.01),
)


@pytest.mark.parametrize(
    ("epochs", "left"),
    [(1, [1]), (3, [3]), (5, [3, 2]), (7, [3, 4]), (11, [3, 4, 4]), (12, [3, 4, 5]), (99, [3, 4, 5])],
)
def test_a_plan_is_cut_from_its_end(epochs: int, left: list[int]) -> None:
    cut = cut_plan(PLAN, epochs)
    assert [stage.epochs for stage in cut.stages] == left
    assert cut.epochs == min(epochs, 12)
    assert [stage.horizon for stage in cut.stages] == [stage.epochs for stage in PLAN.stages][: len(left)]
    assert Plan.from_dict(cut.to_dict()) == cut
    assert (cut == PLAN) == (epochs >= 12)


@pytest.mark.parametrize(
    ("steps", "batches", "per_step", "epochs"),
    [(1, 10, 1, 1), (10, 10, 1, 1), (11, 10, 1, 2), (5, 10, 4, 2), (3, 10, 4, 1)],
)
def test_steps_are_reached_in_an_epoch(steps: int, batches: int, per_step: int, epochs: int) -> None:
    assert epochs_of_steps(steps, batches_per_epoch=batches, batches_per_step=per_step) == epochs


def test_times_are_read_as_the_trainer_reads_them() -> None:
    assert parse_max_time(None) is None
    assert parse_max_time("01:02:03:04") == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert parse_max_time({"minutes": 90}) == timedelta(hours=1.5)
    with pytest.raises(ValueError, match=r"^max_time: got '5 minutes', want days, hours"):
        parse_max_time("5 minutes")
