"""How fast a network trains in each precision and memory layout: measured on copies of it, in two seconds."""

import copy
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unfreeze.models.classifier import Classifier, FrozenNorm
from unfreeze.system.accelerator import synchronize
from unfreeze.training.precision.precision import BASELINE, BFLOAT16, CANDIDATES, Candidate

BUDGET_S = 2.0

_FIRST_IMAGES = (2, 8)
"""So many tell what an image costs beside what a step costs; fewer than two are too few for norms."""

_FIRST_STEPS = 2
"""Of each candidate: one that warms up, and one that counts."""

_STEPS = 4
"""Of each candidate that the batch is chosen for."""

_MOST_STEPS = 12
_HOPELESS = 2.0
"""What takes so many times as long as the baseline is left out once that is known."""


@dataclass(frozen=True)
class Speeds:
    """What was measured.

    Args:
        ratios: Times as fast as the baseline, by candidate, each at the largest batch that both have done.
        batch_size: The largest of these batches; 0 where nothing was measured.
    """

    ratios: dict[Candidate, float]
    batch_size: int


def probe_speed(
    classifier: Classifier,
    *,
    live: Collection[str],
    frozen_norm: FrozenNorm,
    batch_size: int,
    device: torch.device,
    budget_s: float = BUDGET_S,
) -> Speeds:
    """Measure forward and backward passes on random images; the classifier and the random draws are left as they are.

    Args:
        classifier: Its network may be on any device.
        live: Layer groups that train.
        frozen_norm: What normalisation layers of the other groups do.
        batch_size: Images per step of the run; fewer are taken where so many would not fit into the budget.
        device: Where the run trains, a CPU or a CUDA device.
        budget_s: Seconds after which no further step begins; copying the network and starting CUDA come before.
    """
    steps = _Steps(classifier, live, frozen_norm, device)
    candidates = [each for each in CANDIDATES if each.precision != BFLOAT16 or has_bfloat16(device)]
    with _same_random_draws(device), torch.enable_grad():
        steps.make_ready()
        speeds = compare_steps(steps, candidates, batch_size=batch_size, budget_s=budget_s)
    if device.type == "cuda":
        del steps
        torch.cuda.empty_cache()
    return speeds


def compare_steps(
    step: Callable[[Candidate, int], object],
    candidates: Sequence[Candidate],
    *,
    batch_size: int,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Speeds:
    """Run the baseline with a few images, then all candidates with as many as the budget allows.

    One after the other gets its first steps, so that where steps are long the budget answers what is worth most; then
    all take turns.

    Args:
        step: Runs one step of a candidate with so many images, to its end; a RuntimeError takes the candidate out.
        candidates: The baseline first, then in the order in which they are worth knowing.
        batch_size: The most images.
        budget_s: No step begins that, by what is known of it, would end later.
        clock: Seconds.
    """
    race = _Race(step, clock, deadline=clock() + budget_s)
    steps = _STEPS * len(candidates)
    size = 0
    for images in _FIRST_IMAGES:
        if size == batch_size or not race.may_try(images, after=size, steps=steps // 2):
            break
        smaller, size = size, min(batch_size, images)
        if not race.begin(BASELINE, size):
            return race.speeds()
    size = race.affordable(batch_size, (smaller, size), steps=steps)
    alive = [candidate for candidate in candidates if race.begin(candidate, size)]
    if race.has_failed(BASELINE, size):
        return race.survivors(alive, size)
    for _ in range(_MOST_STEPS - _FIRST_STEPS):
        alive = [each for each in alive if not race.is_hopeless(each, size) and race.run(each, size)]
        if BASELINE not in alive:
            break
    return race.speeds()


class _Race:
    """The times of candidates at some batch sizes; the first step at each size warms up."""

    def __init__(
        self, step: Callable[[Candidate, int], object], clock: Callable[[], float], *, deadline: float
    ) -> None:
        self._step = step
        self._clock = clock
        self._deadline = deadline
        self._times: dict[tuple[Candidate, int], list[float]] = {}
        self._failed: set[tuple[Candidate, int]] = set()

    def run(self, candidate: Candidate, size: int) -> bool:
        """Run a step; return False where there is no time for it, or it can't be run."""
        if self._left_s() < self._expected(candidate, size):
            return False
        started = self._clock()
        try:
            self._step(candidate, size)
        except RuntimeError:  # an operation that there is not in bfloat16, or not enough memory
            self._failed.add((candidate, size))
            return False
        self._times.setdefault((candidate, size), []).append(self._clock() - started)
        return True

    def begin(self, candidate: Candidate, size: int) -> bool:
        """Run those of a candidate's first steps that it has not run; return False where one was not run."""
        done = len(self._times.get((candidate, size), []))
        return all(self.run(candidate, size) for _ in range(done, _FIRST_STEPS))

    def has_failed(self, candidate: Candidate, size: int) -> bool:
        """Return whether a candidate could not run, however much time there was."""
        return (candidate, size) in self._failed

    def survivors(self, alive: Sequence[Candidate], size: int) -> Speeds:
        """Return the speeds of some candidates at a size beside the first of them; without any, what is known else."""
        if not alive:
            return self.speeds()
        first = self._last(alive[0], size)
        return Speeds({candidate: first / self._last(candidate, size) for candidate in alive}, size)

    def may_try(self, size: int, *, after: int, steps: int) -> bool:
        """Return whether so many steps of a larger size would fit, were they as much longer as it is larger."""
        return not after or steps * self._last(BASELINE, after) * size / after < self._left_s()

    def affordable(self, batch_size: int, tried: tuple[int, int], *, steps: int) -> int:
        """Return how many images a step may have, for so many steps to fit into what is left; as many as tried or more.

        Args:
            batch_size: The most.
            tried: Two sizes that the baseline has run at; the first may be 0.
            steps: As long as the baseline's.
        """
        smaller, larger = tried
        longest = self._last(BASELINE, larger)
        shorter = self._last(BASELINE, smaller) if smaller else 0.0
        # At least half of a step grows with the batch: noise must not make images cheap.
        per_image = max((longest - shorter) / (larger - smaller), longest / (2 * larger), 1e-9)
        more = int((self._left_s() / steps - longest) / per_image)
        return min(batch_size, larger + max(0, more))

    def is_hopeless(self, candidate: Candidate, size: int) -> bool:
        """Return whether a candidate is far slower than the baseline."""
        return self._last(candidate, size) > _HOPELESS * self._last(BASELINE, size)

    def speeds(self) -> Speeds:
        """Return each candidate's speed beside the baseline's, by the fastest step of both at the largest size.

        What had time for the step that warms up alone is told only where it was the slower one in it.
        """
        ratios, largest = {}, 0
        for candidate, size in sorted(self._times, key=lambda key: key[1]):
            mine, theirs = self._times[candidate, size], self._times.get((BASELINE, size), [])
            if len(mine) > 1 and len(theirs) > 1:
                ratios[candidate], largest = min(theirs[1:]) / min(mine[1:]), size
            elif theirs and candidate != BASELINE and mine[0] > theirs[0]:
                ratios[candidate] = theirs[0] / mine[0]
        return Speeds(ratios, largest)

    def _expected(self, candidate: Candidate, size: int) -> float:
        """Return what a step will take at least, in seconds, by what is known."""
        known = self._times.get((candidate, size)) or self._times.get((BASELINE, size))
        return known[-1] if known else 0.0

    def _last(self, candidate: Candidate, size: int) -> float:
        return self._times[candidate, size][-1]

    def _left_s(self) -> float:
        return self._deadline - self._clock()


class _Steps:
    """Training steps without an optimizer, on copies of a network."""

    def __init__(
        self, classifier: Classifier, live: Collection[str], frozen_norm: FrozenNorm, device: torch.device
    ) -> None:
        self._original = classifier
        self._live = live
        self._frozen_norm = frozen_norm
        self._device = device
        self._copies: dict[bool, Classifier] = {}
        self._made: tuple[Tensor, Tensor] | None = None

    def make_ready(self) -> None:
        """Do what the first step should not be charged with."""
        self._copy(channels_last=True)
        if self._device.type != "cpu":
            for candidate in CANDIDATES:
                if candidate.precision != BFLOAT16 or has_bfloat16(self._device):
                    self(candidate, 2)  # loads the libraries of its kernels, which takes seconds
        self._wait()

    def __call__(self, candidate: Candidate, size: int) -> None:
        """Run forward and backward on some images, to their end on the device."""
        network = self._copy(channels_last=candidate.channels_last).network
        images, labels = self._batch(size)
        if not candidate.channels_last:
            images = images.contiguous()
        bf16 = candidate.precision == BFLOAT16
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16, cache_enabled=False)
        with autocast if bf16 else nullcontext():
            loss = F.cross_entropy(network(images).float(), labels)
        torch.autograd.backward([loss])
        network.zero_grad(set_to_none=True)
        self._wait()

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return images as preprocessing leaves them, channels last, and labels; made by the step that warms up."""
        if self._made is None or len(self._made[1]) != size:
            side = self._original.preprocessing.crop_px
            images = torch.randn(size, self._original.spec.in_chans, side, side, device=self._device)
            labels = torch.arange(size, device=self._device) % len(self._original.classes)
            self._made = images.contiguous(memory_format=torch.channels_last), labels
        return self._made

    def _copy(self, *, channels_last: bool) -> Classifier:
        if channels_last not in self._copies:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            network = copy.deepcopy(self._original.network).to(self._device).to(memory_format=layout)
            made = self._copies[channels_last] = replace(self._original, network=network)
            made.freeze_all_but(self._live)
            network.train()
            made.set_frozen_modes(self._live, self._frozen_norm)
        return self._copies[channels_last]

    def _wait(self) -> None:
        synchronize(self._device)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16; a CPU always does, slowly where it has no instructions for it."""
    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))


@contextmanager
def _same_random_draws(device: torch.device) -> Iterator[None]:
    """Put the random generators back at the end: dropout draws."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
