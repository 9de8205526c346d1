"""Averages of the weights that a stage trains: exponential (EMA), or equal over its last epochs (SWA)."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from unfreeze.errors import UnfreezeError
from unfreeze.models.norms import NORMS
from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier

_WARM = 10
"""After t steps the decay is at most (1 + t) / (10 + t), so that a short stage forgets its first weights."""


class WeightAverage(L.Callback):
    """Averages the weights of a stage; validation and checkpoints use the average, training goes on without it.

    Each stage starts an average of its trainable weights, and of the statistics that its norms update. The next stage
    starts from the average, since validation used it. Checkpoints store the average as the model, and the weights
    beside it for a resume.

    Args:
        decay: Of an exponential average after each step (Polyak and Juditsky 1992), in [0, 1); None for the mean of the
            epochs' last weights (Izmailov et al. 2018).
        start: Share of a stage's epochs after which weights are averaged, in [0, 1); validation uses the weights
            themselves before it. Not for an exponential average, which starts at once.

    Raises:
        UnfreezeError: If a value is out of its range.
    """

    def __init__(self, decay: float | None = 0.999, start: float = 0.5) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise UnfreezeError(f"callbacks.average.decay: got {decay}, want a number in [0, 1), or null")
        if not 0 <= start < 1:
            raise UnfreezeError(f"callbacks.average.start: got {start}, want a share of the stage in [0, 1)")
        self._decay = decay
        self._start = start
        self._stages: StagedUnfreezing | None = None
        self._module: ImageClassifier | None = None
        self._average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}
        self._updates = 0
        self._stage: int | None = None
        self._last_step = 0
        self._swapped = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the stages.

        Raises:
            UnfreezeError: If there are none.
        """
        assert isinstance(pl_module, ImageClassifier)
        found = [callback for callback in trainer.callbacks if isinstance(callback, StagedUnfreezing)]  # type: ignore[attr-defined]
        if stage == "fit" and not found:
            raise UnfreezeError("callbacks.average: averages what a stage trains; add StagedUnfreezing")
        self._module, self._stages = pl_module, found[0] if found else None
        if stage == "fit":
            check_comes_after(trainer, self, self._stages)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights that training goes on from, and how far the average is."""
        current = self._average if self._swapped else self._own
        return {"current": dict(current), "updates": self._updates, "stage": self._stage, "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average from the loaded model, and load the weights that training goes on from."""
        self._updates, self._stage = state_dict["updates"], state_dict["stage"]
        self._last_step = state_dict["last_step"]
        self._average = {key: value.clone() for key, value in state_dict["current"].items()}
        self._find_own()
        self._swap()
        self._swapped = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model."""
        average = self._own if self._swapped else self._average
        for key, value in average.items():
            checkpoint["state_dict"][f"network.{key}"] = value

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow the network to its device, which it may not have been on when a checkpoint was loaded."""
        self._follow()

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin the average of a stage that begins."""
        assert self._stages is not None
        if self._stage != self._stages.stage:
            self._stage, self._updates, self._last_step = self._stages.stage, 0, trainer.global_step
            self._average = {key: value.clone() for key, value in self._trained().items()}
            self._find_own()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step or at the end of an epoch."""
        stepped, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        if self._decay is not None:
            if stepped:
                self._update(min(self._decay, (1 + self._updates) / (_WARM + self._updates)))
        elif batch_idx + 1 == trainer.num_training_batches:
            assert self._stages is not None
            epochs = self._stages.plan.stages[self._stages.stage].epochs
            if self._stages.epochs_in_stage <= int(self._start * epochs):
                self._updates = 0
            self._update(None)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap in the average for validation."""
        if trainer.state.fn == "fit" and self._average:
            self._swap()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Swap the weights back in; callbacks before this one have seen the average."""
        if self._swapped:
            self._swap()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the next stage from the average, unless it starts from the best weights."""
        assert self._stages is not None
        if self._stages.ends and self._stages.plan.restore == "last":
            self._swap()
            self._average = {key: value.clone() for key, value in self._own.items()}
            self._swapped = False

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Follow the network back from its device."""
        self._follow()

    def _update(self, decay: float | None) -> None:
        """Move the average towards the weights: by a decay, or to the mean of all that were taken."""
        own = self._own
        counting = [key for key, value in own.items() if value.is_floating_point()]
        share = 1 / (1 + self._updates) if decay is None else 1 - decay
        torch._foreach_lerp_([self._average[key] for key in counting], [own[key] for key in counting], share)
        for key in own.keys() - set(counting):
            self._average[key].copy_(own[key])
        self._updates += 1

    def _trained(self) -> dict[str, Tensor]:
        """Return what the stage changes, by the names of the network."""
        assert self._module is not None
        network = self._module.network
        weights: dict[str, Tensor] = {
            key: parameter.data for key, parameter in network.named_parameters() if parameter.requires_grad
        }
        for name, module in network.named_modules():
            if isinstance(module, NORMS) and module.training:
                weights |= {f"{name}.{key}": buffer for key, buffer in module.named_buffers(recurse=False)}
        return weights

    def _follow(self) -> None:
        self._find_own()
        self._average = {key: value.to(self._own[key].device) for key, value in self._average.items()}

    def _find_own(self) -> None:
        """Find the network's tensors of what is averaged, once: they change in place, and a step is short."""
        assert self._module is not None
        state = self._module.network.state_dict()
        self._own = {key: state[key] for key in self._average}

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the values of the network and of the average."""
        for key, value in self._own.items():
            kept = value.clone()
            value.copy_(self._average[key])
            self._average[key] = kept
        self._swapped = not self._swapped
