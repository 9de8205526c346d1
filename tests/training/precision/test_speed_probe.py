"""A probe keeps to its time, tells which is faster, and leaves everything as it was."""

from collections.abc import Callable

import pytest
import torch

from tests.training.conftest import make_classifier
from unfreeze.training.precision.precision import BASELINE, CANDIDATES, Candidate, choose
from unfreeze.training.precision.speed_probe import compare_steps, probe_speed

BF16 = CANDIDATES[1]


class Machine:
    """Steps that take the time they are told to, by its own clock."""

    def __init__(self, seconds: Callable[[Candidate, int], float], *, cold: float = 2.0) -> None:
        self._seconds = seconds
        self._cold = cold
        self.now = 100.0
        self.steps: list[tuple[Candidate, int]] = []

    def step(self, candidate: Candidate, size: int) -> None:
        first = (candidate, size) not in self.steps
        self.steps.append((candidate, size))
        self.now += self._seconds(candidate, size) * (self._cold if first else 1.0)

    def clock(self) -> float:
        return self.now

    def compare(self, batch_size: int = 64) -> tuple[dict[str, float], int]:
        speeds = compare_steps(self.step, CANDIDATES, batch_size=batch_size, budget_s=2.0, clock=self.clock)
        return {candidate.name: ratio for candidate, ratio in speeds.ratios.items()}, speeds.batch_size


def per_image(fp32: float, bf16: float, contiguous: float = 1.0) -> Callable[[Candidate, int], float]:
    def seconds(candidate: Candidate, size: int) -> float:
        return (
            size
            * (bf16 if candidate.precision == BF16.precision else fp32)
            * (1.0 if candidate.channels_last else contiguous)
        )

    return seconds


class TestTurns:
    def test_a_fast_network_is_measured_at_its_batch_size(self) -> None:
        machine = Machine(per_image(1e-4, 5e-5, contiguous=2.0))
        ratios, size = machine.compare()
        assert size == 64
        assert [ratios[candidate.name] for candidate in CANDIDATES] == pytest.approx([1.0, 2.0, 0.5, 1.0])
        assert machine.now - 100 < 2.0

    def test_what_only_pays_in_large_batches_is_seen_to_pay(self) -> None:
        machine = Machine(lambda each, size: 0.002 + size * 1e-5 if each == BF16 else size * 2e-4)
        ratios, size = machine.compare()
        assert size == 64
        assert ratios[BF16.name] > 4

    def test_a_slow_network_is_measured_with_fewer_images(self) -> None:
        machine = Machine(per_image(0.01, 0.004))
        ratios, size = machine.compare()
        assert 2 <= size < 64
        assert ratios[BF16.name] == pytest.approx(2.5)
        assert machine.now - 100 <= 2.0

    def test_what_is_far_slower_is_left_out_once_that_is_known(self) -> None:
        machine = Machine(per_image(1e-4, 1e-3))
        ratios, size = machine.compare()
        assert ratios[BF16.name] == pytest.approx(0.1)
        assert machine.steps.count((BF16, size)) == 2
        assert machine.steps.count((BASELINE, size)) > 4

    def test_where_a_step_costs_more_than_its_images_the_batch_grows_to_its_size(self) -> None:
        ratios, size = Machine(lambda each, size: 0.015 + size * 1e-4).compare()
        assert size == 64
        assert set(ratios.values()) == {1.0}

    @pytest.mark.parametrize("two_images", [0.1, 0.2, 0.35])
    def test_long_steps_leave_time_for_the_other_precision_before_any_other_layout(self, two_images: float) -> None:
        machine = Machine(per_image(two_images / 2, two_images / 4), cold=1.5)
        ratios, size = machine.compare(batch_size=8)
        assert size == 2
        assert ratios[BF16.name] == pytest.approx(2.0)

    def test_a_first_step_alone_can_only_speak_against_a_candidate(self) -> None:
        slower = Machine(lambda each, size: 0.9 if each == BF16 else 0.3, cold=1.0)
        assert slower.compare() == ({BASELINE.name: 1.0, BF16.name: pytest.approx(0.3 / 0.9)}, 2)

    @pytest.mark.parametrize("seconds", [0.2, 0.7, 1.5, 30.0])
    @pytest.mark.parametrize("slower", [0.5, 1.0, 6.0])
    def test_no_step_begins_that_is_known_to_end_too_late(self, seconds: float, slower: float) -> None:
        machine = Machine(per_image(seconds / 2, seconds / 2 * slower), cold=1.0)
        machine.compare()
        unknown = max(seconds, seconds * slower)
        assert machine.now - 100 <= 2.0 + unknown

    def test_nothing_is_told_where_even_two_images_take_too_long(self) -> None:
        assert Machine(per_image(1.5, 1.5)).compare() == ({}, 0)

    def test_a_candidate_that_fails_is_out_and_the_others_stay(self) -> None:
        def seconds(candidate: Candidate, size: int) -> float:
            if candidate == BF16:
                raise RuntimeError("not implemented for 'BFloat16'")
            return 1e-3

        ratios, _ = Machine(seconds).compare()
        assert BF16.name not in ratios
        assert len(ratios) == 3

    def test_too_large_a_batch_for_the_memory_leaves_what_was_measured_before(self) -> None:
        def seconds(candidate: Candidate, size: int) -> float:
            if size > 2:
                raise torch.OutOfMemoryError("out of memory")
            return 1e-3

        ratios, size = Machine(seconds).compare()
        assert size == 2
        assert ratios[BASELINE.name] == 1.0

    def test_what_alone_fits_into_the_memory_is_chosen(self) -> None:
        def seconds(candidate: Candidate, size: int) -> float:
            if size > 8 and candidate.precision != BF16.precision:
                raise torch.OutOfMemoryError("out of memory")
            return 1e-3

        ratios, size = Machine(seconds).compare()
        assert size == 64
        assert choose(ratios) == BF16


@pytest.mark.parametrize("live", [1, 3, 5])
def test_the_network_and_the_random_draws_are_as_before(live: int) -> None:
    classifier = make_classifier(dropout=0.3)
    network = classifier.network.train()
    names = [group.name for group in classifier.groups]
    classifier.freeze_all_but(names[:2])
    classifier.set_frozen_modes(names[:2], "eval")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.rand_like(parameter)

    def everything() -> list[object]:
        tensors = [*network.state_dict().items(), *((f"{k} grad", p.grad) for k, p in network.named_parameters())]
        return [
            [(key, t.clone(), t.stride(), t.data_ptr()) for key, t in tensors if t is not None],
            [(key, module.training) for key, module in network.named_modules()],
            [(key, parameter.requires_grad, id(parameter)) for key, parameter in network.named_parameters()],
            torch.get_rng_state(),
            torch.is_grad_enabled(),
        ]

    before = everything()
    probe_speed(
        classifier,
        live=names[:live],
        frozen_norm="eval",
        batch_size=4,
        device=torch.device("cpu"),
        budget_s=0.5,
    )
    after = everything()
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])  # type: ignore[arg-type]
    assert before[4] == after[4]
    for (key, a, *where), (other, b, *there) in zip(before[0], after[0], strict=True):  # type: ignore[call-overload]
        assert (key, where) == (other, there)
        assert torch.equal(a, b), key


def test_every_candidate_of_a_small_network_is_measured() -> None:
    classifier = make_classifier()
    live = [group.name for group in classifier.groups]
    cpu = torch.device("cpu")
    speeds = probe_speed(classifier, live=live, frozen_norm="eval", batch_size=4, device=cpu, budget_s=60.0)
    assert set(speeds.ratios) == set(CANDIDATES)
    assert speeds.batch_size == 4
    assert all(ratio > 0 for ratio in speeds.ratios.values())
