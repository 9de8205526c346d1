"""Learning-rate schedules inside one stage, as multipliers over its progress."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Return 1 throughout."""
    del progress
    return 1.0


def step(progress: float) -> float:
    """Return 1, then 0.1, then 0.01 over the thirds of the stage."""
    return float(0.1 ** min(2, int(progress * 3)))


def cosine(progress: float) -> float:
    """Return half a cosine from 1 to 0 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(progress: float) -> float:
    """Return a cosine rise from 1/25 to 1 over 30 %, then a cosine fall to 1e-4 (Smith and Topin 2018)."""
    if progress < 0.3:
        return _cosine_between(1 / 25, 1.0, progress / 0.3)
    return _cosine_between(1.0, 1e-4, (progress - 0.3) / 0.7)


def cyclic(progress: float) -> float:
    """Return two triangles between 0.1 and 1 (Smith 2017, policy "triangular")."""
    phase = (progress * 2) % 1.0
    return 0.1 + 0.9 * (1 - abs(2 * phase - 1))


def _cosine_between(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * cosine(fraction)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
}
