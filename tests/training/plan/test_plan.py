"""Plans by arithmetic: which groups train when, and at which rates."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.errors import UnfreezeError
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage, plan_differences
from unfreeze.training.plan.resolve import resolve_plan
from unfreeze.training.plan.schedules import SCHEDULES
from unfreeze.training.plan.text import format_plan, format_rates

GROUPS = (
    Group("head", 20),
    Group("layer4", 400),
    Group("layer3", 300),
    Group("layer2", 200),
    Group("layer1", 100),
    Group("stem", 10),
)
NAMES = [group.name for group in GROUPS]
TENTHS = Rates(head=1e-3, decay=0.1, floor=1e-2)


def plan_of(*stages: Stage, rates: Rates = TENTHS, groups: Sequence[Group] = GROUPS, **options: Any) -> Plan:
    return resolve_plan(stages, groups, rates=rates, architecture="resnet18", **options)


def peaks_of(rates: Rates, **stage: Any) -> dict[str, float]:
    planned = plan_of(Stage(**{"name": "all", "train": "all", "epochs": 1, **stage}), rates=rates).stages[0]
    return dict(zip(planned.groups, planned.rates, strict=True))


@pytest.mark.parametrize(
    ("train", "live"),
    [
        (1, NAMES[:1]),
        (3, NAMES[:3]),
        (6, NAMES),
        ("all", NAMES),
        ("layer4", ["layer4"]),
        ("layer.*", ["layer4", "layer3", "layer2", "layer1"]),
        (["stem", "head"], ["head", "stem"]),
        (["head", "layer[34]"], ["head", "layer4", "layer3"]),
        ([".*"], NAMES),
    ],
)
def test_train_selects_groups_from_the_head_down(train: Any, live: list[str]) -> None:
    plan = plan_of(Stage("only", train, 1))
    assert plan.stages[0].groups == tuple(live)
    assert plan.trainable(0) == sum(group.parameters for group in GROUPS if group.name in live)


def test_a_pattern_must_match_the_whole_name() -> None:
    with pytest.raises(UnfreezeError, match="no group matches 'layer'"):
        plan_of(Stage("only", "layer", 1))


def test_a_group_whose_name_is_no_pattern_is_found_by_its_name() -> None:
    plan = plan_of(Stage("only", ["c++"], 1), groups=[Group("head", 1), Group("c++", 2)])
    assert plan.stages[0].groups == ("c++",)


def test_rates_fall_by_decay_to_the_floor() -> None:
    expected = {"head": 1e-3, "layer4": 1e-4, "layer3": 1e-5, "layer2": 1e-5, "layer1": 1e-5, "stem": 1e-5}
    assert peaks_of(TENTHS) == pytest.approx(expected)


def test_without_decay_all_groups_have_the_rate_of_the_head() -> None:
    assert set(peaks_of(Rates(head=3e-4)).values()) == {3e-4}


def test_depth_counts_from_the_head_also_where_groups_between_are_frozen() -> None:
    assert peaks_of(Rates(head=1.0, decay=0.5), train=["head", "stem"]) == pytest.approx({"head": 1, "stem": 0.5**5})


def test_a_map_of_rates_overrides_what_it_matches() -> None:
    peaks = peaks_of(Rates(head=1e-3, decay=0.1, floor=1e-2, groups={"layer[12]": 7e-4, "stem": 2e-5}))
    expected = {"head": 1e-3, "layer4": 1e-4, "layer3": 1e-5, "layer2": 7e-4, "layer1": 7e-4, "stem": 2e-5}
    assert peaks == pytest.approx(expected)


def test_a_list_of_rates_goes_on_to_the_deepest_group_with_its_last() -> None:
    peaks = peaks_of(Rates(head=1.0, groups=[1e-2, 1e-3, 1e-4]))
    assert list(peaks.values()) == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4])


def test_a_rate_of_0_freezes_its_group() -> None:
    assert set(peaks_of(Rates(head=1e-3, groups={"stem": 0.0, "layer1": 0}))) == set(NAMES[:4])


def test_freeze_below_freezes_what_would_hardly_move() -> None:
    assert list(peaks_of(Rates(head=1e-3, decay=0.5, freeze_below=0.2))) == ["head", "layer4", "layer3"]


@pytest.mark.parametrize("decay", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_factor_equal_to_freeze_below_is_live(decay: float) -> None:
    assert len(peaks_of(Rates(head=1e-3, decay=decay, freeze_below=round(decay**2, 6)))) >= 3


def test_a_stage_with_a_rate_changes_the_head_and_so_what_follows_from_it() -> None:
    plan = plan_of(Stage("a", 2, 1), Stage("b", 2, 1, lr=5e-3), Stage("c", 2, 1, lr={"decay": 0.5}))
    assert [stage.rates for stage in plan.stages] == [
        pytest.approx((1e-3, 1e-4)),
        pytest.approx((5e-3, 5e-4)),
        pytest.approx((1e-3, 5e-4)),
    ]


def test_a_stage_may_name_its_own_schedule_optimizer_and_augmentation() -> None:
    plan = plan_of(
        Stage("a", 1, 1),
        Stage("b", 1, 1, schedule="step", optimizer="sgd", augment="strong"),
        schedule="cyclic",
        optimizer="adam",
    )
    chosen = [(stage.schedule, stage.optimizer, stage.augment) for stage in plan.stages]
    assert chosen == [("cyclic", "adam", None), ("step", "sgd", "strong")]


def test_lr_is_peak_times_warmup_times_schedule() -> None:
    plan = plan_of(Stage("only", 2, 1, warmup=0.2), schedule="constant")
    assert plan.lr("head", 0, 0.0) == 0
    assert plan.lr("head", 0, 0.05) == pytest.approx(0.25e-3)
    assert plan.lr("head", 0, 0.2) == pytest.approx(1e-3)
    assert plan.lr("layer4", 0, 0.1) == pytest.approx(0.5e-4)
    assert plan_of(Stage("only", 2, 1, warmup=0.2)).lr("head", 0, 0.1) == pytest.approx(
        0.5 * SCHEDULES["cosine"](0.1) * 1e-3
    )


def test_each_stage_starts_its_schedule_anew() -> None:
    plan = plan_of(Stage("a", 1, 1), Stage("b", 1, 9))
    assert plan.lr("head", 0, 1.0) == pytest.approx(0)
    assert plan.lr("head", 1, 0.0) == pytest.approx(1e-3)


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    warmup=st.floats(0, 0.99),
    progress=st.floats(0, 1),
    decay=st.floats(0.05, 1),
    floor=st.floats(0, 1),
)
def test_rate_ratios_hold_at_every_progress(
    schedule: str, warmup: float, progress: float, decay: float, floor: float
) -> None:
    rates = Rates(head=1e-3, decay=decay, floor=floor)
    plan = plan_of(Stage("only", "all", 1, warmup=warmup), rates=rates, schedule=schedule)
    head = plan.lr("head", 0, progress)
    for depth, name in enumerate(NAMES):
        assert plan.lr(name, 0, progress) == pytest.approx(head * max(decay**depth, floor), rel=1e-9, abs=1e-300)


@given(progress=st.floats(0, 1), schedule=st.sampled_from(sorted(SCHEDULES)))
def test_a_frozen_group_has_a_rate_of_0(progress: float, schedule: str) -> None:
    plan = plan_of(Stage("only", 2, 1), schedule=schedule)
    assert {plan.lr(name, 0, progress) for name in NAMES[2:]} == {0.0}


def test_totals() -> None:
    plan = plan_of(Stage("a", 1, 3), Stage("b", "all", 4))
    assert (plan.epochs, plan.total, plan.trainable(0), plan.trainable(1)) == (7, 1030, 20, 1030)


def two_stages(**changes: Any) -> Plan:
    second = {"name": "deeper", "train": ["head", "layer.*"], "epochs": 4, "warmup": 0.1, "patience": 2, **changes}
    return plan_of(Stage("head", 1, 3, augment="none"), Stage(**second))


def test_to_dict_is_plain_json_from_which_an_equal_plan_comes() -> None:
    plan = two_stages(lr={"groups": {"stem": 1e-6}}, schedule="one_cycle", optimizer="sgd")
    copy = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert copy == plan
    assert hash(copy) == hash(plan)
    assert copy.lr("layer4", 1, 0.05) == plan.lr("layer4", 1, 0.05)
    assert not plan_differences(plan, copy)


def test_plans_that_train_the_same_way_are_equal_however_they_were_written() -> None:
    assert plan_of(Stage("a", 2, 1)) == plan_of(Stage("a", ["layer4", "head"], 1, lr=1e-3, schedule="cosine"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 5}, "stage 'deeper': epochs was 4, is 5"),
        ({"patience": None}, "stage 'deeper': patience was 2, is None"),
        ({"warmup": 0.2}, "stage 'deeper': warmup was 0.1, is 0.2"),
        ({"schedule": "step"}, "stage 'deeper': schedule was 'cosine', is 'step'"),
        ({"augment": "light"}, "stage 'deeper': augment was None, is 'light'"),
        ({"name": "block"}, "stage 'deeper': name was 'deeper', is 'block'"),
    ],
)
def test_plan_differences_name_stage_and_values(change: Mapping[str, Any], told: str) -> None:
    changed = two_stages(**change)
    assert plan_differences(two_stages(), changed) == [told]
    assert changed != two_stages()


def test_plan_differences_name_rates_groups_and_what_holds_for_the_run() -> None:
    old = two_stages()
    new = plan_of(Stage("head", 2, 3, augment="none", lr=1.0), restore="last", frozen_norm="train")
    told = "\n".join(plan_differences(old, new))
    assert "restore was 'best', is 'last'" in told
    assert "frozen_norm was 'eval', is 'train'" in told
    assert "2 stages became 1" in told
    assert "stage 'head': groups was ('head',), is ('head', 'layer4')" in told
    assert "stage 'head': rates was (0.001,), is (1.0, 0.1)" in told


def test_plan_differences_name_another_head() -> None:
    other = plan_of(*[Stage("head", 1, 3)], groups=[Group("head", 99), *GROUPS[1:]])
    assert "groups was" in plan_differences(plan_of(Stage("head", 1, 3)), other)[0]


ALL_NAMES = "head layer4 layer3 layer2 layer1 stem"


@pytest.mark.parametrize(
    ("stage", "rates", "told"),
    [
        ({"train": 0}, TENTHS, f"train is 0, but resnet18 has 6 groups: {ALL_NAMES}. Want a number from 1 to 6"),
        ({"train": 7}, TENTHS, "train is 7, but resnet18 has 6 groups"),
        ({"train": -1}, TENTHS, "train is -1, but resnet18 has 6 groups"),
        ({"train": "layer5"}, TENTHS, f"no group matches 'layer5'. Groups of resnet18: {ALL_NAMES}"),
        ({"train": ["head", "block.*"]}, TENTHS, "no group matches 'block.*'"),
        ({"train": "All"}, TENTHS, "no group matches 'All'"),
        ({"train": ["layer4", "layer.*"]}, TENTHS, "'layer4' and 'layer.*' both match 'layer4'; keep one"),
        ({"train": ["head", "head"]}, TENTHS, "'head' and 'head' both match 'head'"),
        ({"train": ["layer["]}, TENTHS, "'layer[' is not a pattern (unterminated character set"),
        ({"train": []}, TENTHS, "trains nothing (train: []"),
        ({"train": ""}, TENTHS, "no group matches ''"),
        ({"train": "stem"}, Rates(head=1.0, groups={"stem": 0.0}), "trains nothing (train: 'stem'"),
        ({"train": "all"}, Rates(head=1.0, groups=[0.0]), "trains nothing"),
        ({"train": "stem"}, Rates(head=1.0, decay=0.1, freeze_below=0.5), "trains nothing"),
        ({"train": 1}, Rates(head=1.0, groups=[1.0] * 7), "lr.groups: 7 rates for 6 groups of resnet18"),
        ({"train": 1}, Rates(head=1.0, groups={"layer9": 1.0}), "lr.groups: no group matches 'layer9'"),
        ({"train": 1}, Rates(head=1.0, groups={"layer.*": 1.0, ".*4": 1.0}), "both match 'layer4'"),
        ({"train": 1}, Rates(head=1.0, groups={"(": 1.0}), "lr.groups: '(' is not a pattern"),
        ({"train": 1, "lr": {"groups": {"layer9": 1.0}}}, TENTHS, "lr.groups: no group matches 'layer9'"),
    ],
)
def test_a_bad_stage_is_refused_by_index_name_and_cause(stage: Mapping[str, Any], rates: Rates, told: str) -> None:
    good = Stage("head", 1, 1, lr={"groups": None, "freeze_below": None})
    with pytest.raises(UnfreezeError) as refusal:
        plan_of(good, Stage(**{"name": "block", "epochs": 1, **stage}), rates=rates)
    assert str(refusal.value).startswith("strategy.stages[1] 'block'")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_stage_at_all_is_refused() -> None:
    with pytest.raises(UnfreezeError, match=r"strategy.stages: the list is empty; want at least \[\{name: head"):
        plan_of()


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(UnfreezeError, match="two stages are called 'head'; give each its own name"):
        plan_of(Stage("head", 1, 1), Stage("other", 1, 1), Stage("head", 2, 1))


def test_a_stage_whose_groups_hold_no_parameter_is_refused() -> None:
    with pytest.raises(UnfreezeError, match="trains nothing"):
        plan_of(Stage("only", 1, 1), groups=[Group("head", 0), Group("stem", 5)])


def test_text_says_what_trains_when_and_how_fast() -> None:
    plan = plan_of(Stage("head", 1, 3, augment="none"), Stage("block", 2, 2, warmup=0.1, patience=1))
    groups, stages, tail = format_plan(plan, augment="light").split("\n\n")
    assert [line.split() for line in groups.splitlines()[1:]] == [
        *([group.name, f"{group.parameters}"] for group in GROUPS),
        ["total", "1,030"],
    ]
    head, block = (line.split() for line in stages.splitlines()[1:])
    assert head == ["head", "head", "20", "3", "0.001", "cosine", "adamw", "none"]
    assert " ".join(block) == "block + layer4 420 2, patience 1 0.001 … 0.0001 cosine, warm-up 10% adamw light"
    assert "at most 5 epochs" in tail


@pytest.mark.parametrize(
    ("rates", "text"), [((1e-3,), "0.001"), ((1e-3, 1e-3), "0.001"), ((3e-3, 2e-4, 1e-5), "0.003 … 1e-05")]
)
def test_rates_are_shown_by_their_ends(rates: tuple[float, ...], text: str) -> None:
    assert format_rates(rates) == text
