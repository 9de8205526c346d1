"""Validation at the end of each stage, whatever the Trainer's intervals are."""

import math

import lightning as L


class EndOfStageValidation:
    """Makes the Trainer validate after the current batch, and restores its intervals afterwards.

    A stage whose last weights were never validated would be left at older ones, and its end would never be chosen.
    """

    def __init__(self) -> None:
        self._intervals: tuple[int | None, int | float | None] | None = None

    def demand(self, trainer: L.Trainer) -> None:
        """Have the Trainer validate after the current batch."""
        if self._intervals is None:
            self._intervals = trainer.check_val_every_n_epoch, trainer.val_check_batch
        trainer.check_val_every_n_epoch = 1
        if trainer.val_check_batch is not None and math.isfinite(trainer.val_check_batch):
            trainer.val_check_batch = 1

    def restore(self, trainer: L.Trainer) -> None:
        """Restore the Trainer's own intervals."""
        if self._intervals is not None:
            trainer.check_val_every_n_epoch, trainer.val_check_batch = self._intervals
            self._intervals = None
