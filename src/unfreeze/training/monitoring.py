"""Facts that several callbacks read from the Trainer."""

import lightning as L

from unfreeze.errors import UnfreezeError
from unfreeze.results.monitor import Score


def monitored_score(trainer: L.Trainer, monitor: str) -> Score:
    """Return the score of the last validation, the first rank's on all ranks.

    Raises:
        UnfreezeError: If nothing logs the metric, with what is logged.
    """
    if monitor not in trainer.callback_metrics:
        logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
        raise UnfreezeError(f"monitor: nothing logs {monitor!r}; what is logged: {logged}")
    return Score(*trainer.strategy.broadcast(tuple(Score.of(trainer.callback_metrics, monitor))))


def has_reached_max_steps(trainer: L.Trainer) -> bool:
    """Return whether the Trainer's `max_steps` ends the fit now."""
    return 0 <= trainer.max_steps <= trainer.global_step
