"""Staged unfreezing: a callback that carries out a plan.

The stage is state, and applying it is idempotent: it is applied on setup, when a checkpoint is loaded, when the fit
starts and at each advance, always between two steps.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from unfreeze.data.augment.presets import Augmentation, AugmentName
from unfreeze.errors import UnfreezeError
from unfreeze.models.groups import count_chosen
from unfreeze.results.monitor import Mode, Score
from unfreeze.training.callbacks.stage_state import StageState
from unfreeze.training.callbacks.stage_validation import EndOfStageValidation
from unfreeze.training.module import ImageClassifier
from unfreeze.training.monitoring import has_reached_max_steps, monitored_score
from unfreeze.training.param_groups import drop_frozen_state
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage, check_same_plan
from unfreeze.training.plan.resolve import resolve_plan
from unfreeze.training.snapshot import restore_snapshot, take_snapshot

log = logging.getLogger(__name__)


class StagedUnfreezing(L.Callback):
    """Trains the stages of a plan one after the other and ends the fit when the last one ends.

    Under DDP with `find_unused_parameters` all parameters are registered before anything freezes. Under any other DDP
    the model is wrapped anew at each advance. Both keep the ranks' weights equal.

    Args:
        stages: The stages in order, or a resolved plan.
        rates: Learning rates by depth; not with a plan.
        schedule: Schedule inside each stage; not with a plan.
        monitor: The logged metric for patience and `restore`.
        mode: Whether lower or higher is better.
        restore: Weights that the next stage starts from: the "best" of the stage before it, or the "last".
        frozen_norm: Whether frozen normalisation layers keep their statistics ("eval") or update them ("train").

    Raises:
        UnfreezeError: In setup, if the stages do not fit the model.
    """

    def __init__(
        self,
        stages: Sequence[Stage] | Plan,
        *,
        rates: Rates | None = None,
        schedule: str = "cosine",
        monitor: str = "val/acc",
        mode: Mode = "max",
        restore: Literal["best", "last"] = "best",
        frozen_norm: Literal["eval", "train"] = "eval",
    ) -> None:
        self._stages = None if isinstance(stages, Plan) else tuple(stages)
        self._plan = stages if isinstance(stages, Plan) else None
        self._rates = rates or Rates(head=1e-3, decay=0.1, floor=0.01)
        self._schedule = schedule
        self._restore: Literal["best", "last"] = restore
        self._frozen_norm: Literal["eval", "train"] = frozen_norm
        self.monitor = monitor
        self.mode: Mode = mode
        self._state = StageState()
        self._end_validation = EndOfStageValidation()
        self._freezes_before_wrapping = True
        self._run_augment: Any = None
        self._module: ImageClassifier | None = None

    @property
    def plan(self) -> Plan:
        """The resolved plan; available from setup on."""
        if self._plan is None:
            raise RuntimeError("the plan is resolved when the trainer sets up; it does not exist yet")
        return self._plan

    @property
    def complete(self) -> bool:
        """True if the last stage has ended."""
        return self._state.is_complete

    @property
    def stage(self) -> int:
        """The index of the current stage."""
        return self._state.index

    @property
    def ends(self) -> bool:
        """True if the current stage has ended, and another one follows."""
        return self._state.is_over

    @property
    def epochs_in_stage(self) -> int:
        """Epochs of the current stage that are done."""
        return self._state.epochs

    @property
    def stage_best(self) -> tuple[Score | None, int, int]:
        """The best validation of the current stage, its epoch, counted from 1, and its optimizer step."""
        return self._state.best, self._state.best_epoch, self._state.best_step

    def describe_remaining(self) -> str:
        """Return the stages that were not trained to their end, for a run that ended before its plan did."""
        current, *later = self.plan.stages[self.stage :]
        begun = [] if self.ends else [f"{current.name} ({self._state.epochs} of {current.epochs} epochs done)"]
        return ", ".join([*begun, *(stage.name for stage in later)])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Resolve the plan against the model and apply the current stage."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImageClassifier):
            raise TypeError(f"StagedUnfreezing trains an ImageClassifier, not a {type(pl_module).__name__}")
        _check_strategy(trainer.strategy)
        if self._module is not pl_module:
            self._module = pl_module
            self._run_augment = pl_module.augment
        if self._plan is None:
            assert self._stages is not None
            self._plan = resolve_plan(
                self._stages,
                groups_of(pl_module),
                rates=self._rates,
                schedule=self._schedule,
                optimizer=pl_module.optimizer_spec.name,
                restore=self._restore,
                frozen_norm=self._frozen_norm,
                architecture=pl_module.classifier.architecture,
                count=partial(count_chosen, pl_module.classifier.network, pl_module.classifier.groups),
            )
        self._freezes_before_wrapping = not _registers_everything(trainer.strategy)
        self._apply(freeze=self._freezes_before_wrapping)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved stage, before the optimizer is built and DDP wraps the module.

        Raises:
            UnfreezeError: If the saved plan is another one, saying what differs.
        """
        saved = Plan.from_dict(state_dict["plan"])
        if self._plan is not None:
            check_same_plan(saved, self._plan)
        self._plan = saved
        self._state = StageState.from_dict(state_dict)
        if self._module is not None:
            self._apply(freeze=self._freezes_before_wrapping)

    def state_dict(self) -> dict[str, Any]:
        """Return the plan and the state of the stage, in plain values and tensors."""
        return {"plan": self.plan.to_dict(), **self._state.to_dict()}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze after DDP has registered all parameters."""
        self._apply(freeze=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Apply the stage once more: a resume in mid-epoch starts here."""
        self._apply(freeze=True)
        drop_frozen_state(trainer.optimizers[0])
        if self._state.is_complete:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Advance if the stage ended with the last epoch."""
        if self._state.is_over:
            self._advance(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set every group's rate for the coming step; the last step of a stage is followed by a validation."""
        batches, planned = int(trainer.num_training_batches), self.plan.stages[self.stage]
        if batch_idx + 1 == batches and self._state.epochs + 1 == planned.epochs:
            self._end_validation.demand(trainer)
        progress = min(1.0, (self._state.steps + 0.5) / (batches * planned.horizon))
        rates = self.plan.rates(self.stage, progress)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rates.get(group["layer_group"], 0.0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; validate at the last step that `max_steps` allows."""
        self._state.steps += 1
        if has_reached_max_steps(trainer):
            self._end_validation.demand(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot of the live weights if this validation is the best of the stage."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = monitored_score(trainer, self.monitor)
        is_best = self._state.update(score, self.mode, epoch=trainer.current_epoch + 1, step=trainer.global_step)
        if is_best and self._will_restore:
            self._state.snapshot = take_snapshot(self._attached.network, trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide whether the stage ends; a resume at an epoch's end calls this twice and counts it once."""
        self._end_validation.restore(trainer)
        state, epoch = self._state, trainer.current_epoch + 1
        if epoch <= state.epochs_counted:
            return
        state.epochs_counted = epoch
        state.epochs += 1
        planned = self.plan.stages[state.index]
        exhausted = planned.patience is not None and state.waited >= planned.patience
        ends = trainer.strategy.reduce_boolean_decision(exhausted or state.epochs >= planned.epochs, all=False)
        out_of_steps = has_reached_max_steps(trainer)
        if ends and not out_of_steps and state.index + 1 < len(self.plan.stages):
            state.is_over = True
        elif ends or out_of_steps:
            state.is_complete = True
            trainer.should_stop = True

    def augmentation_of(self, stage: int) -> "AugmentName | Augmentation":
        """Return the augmentation of a stage's training images."""
        return cast("AugmentName | Augmentation", self.plan.stages[stage].augment or self._run_augment)

    @property
    def _will_restore(self) -> bool:
        return self.plan.restore == "best" and self.stage + 1 < len(self.plan.stages)

    def _apply(self, *, freeze: bool) -> None:
        module, planned = self._attached, self.plan.stages[self.stage]
        if freeze:
            module.set_live_groups(frozenset(planned.groups), self.plan.frozen_norm, planned.only)
        module.set_augmentation(self.augmentation_of(self.stage))
        module.set_optimizer(planned.optimizer)  # type: ignore[arg-type]

    def _advance(self, trainer: L.Trainer) -> None:
        """Advance to the next stage: restore the best weights, unfreeze, and wrap anew under DDP."""
        before = self.plan.stages[self.stage]
        if self._state.snapshot is not None:
            restore_snapshot(self._attached.network, trainer.optimizers[0], self._state.snapshot)
        if trainer.is_global_zero:
            log.info(self._describe_advance())
        self._state = self._state.advanced()
        self._apply(freeze=True)
        if self.plan.stages[self.stage].optimizer != before.optimizer:
            trainer.optimizers = [self._attached.configure_optimizers()]
        drop_frozen_state(trainer.optimizers[0])
        if isinstance(trainer.strategy, DDPStrategy) and not _registers_everything(trainer.strategy):
            _rewrap(trainer.strategy)

    def _describe_advance(self) -> str:
        before, after = self.plan.stages[self.stage], self.plan.stages[self.stage + 1]
        unfrozen = [group for group in self.plan.groups if group.name in set(after.groups) - set(before.groups)]
        frozen = [name for name in before.groups if name not in after.groups]
        changes = []
        if unfrozen:
            names = ", ".join(group.name for group in unfrozen)
            added = f"{sum(group.parameters for group in unfrozen):,} parameters"
            if after.only is not None:
                added = f"{', '.join(after.only)} alone, {self.plan.trainable(self.stage + 1):,} parameters in all"
            changes.append(f"{names} unfrozen ({added})")
        if frozen:
            changes.append(f"{', '.join(frozen)} frozen")
        state = self._state
        if state.snapshot is not None and state.best is not None:
            score = f"{self.monitor} {state.best.value:.3f}"
            changes.append(f"best of {before.name} restored (epoch {state.best_epoch}, {score})")
        return f"→ {after.name}: {', '.join(changes) or 'the same groups'}"

    @property
    def _attached(self) -> ImageClassifier:
        assert self._module is not None, "setup has attached a module"
        return self._module


def groups_of(module: ImageClassifier) -> tuple[Group, ...]:
    """Return the layer groups of a module as the groups of a plan."""
    classifier = module.classifier
    return tuple(
        Group(group.name, sum(parameter.numel() for parameter in classifier.parameters_of(group)))
        for group in classifier.groups
    )


def _check_strategy(strategy: Strategy) -> None:
    if not isinstance(strategy, DDPStrategy | SingleDeviceStrategy):
        raise UnfreezeError(
            f"trainer.strategy: staged unfreezing is right on one device and under DDP, not under "
            f"{type(strategy).__name__}; type trainer=ddp"
        )


def _registers_everything(strategy: Strategy) -> bool:
    return isinstance(strategy, DDPStrategy) and bool(strategy._ddp_kwargs.get("find_unused_parameters"))


def _rewrap(strategy: DDPStrategy) -> None:
    """Wrap the module again, so that DDP registers the live parameters; tests pin these private calls of Lightning."""
    module = strategy.lightning_module
    assert module is not None
    strategy.model = module
    strategy.model = strategy._setup_model(module)
    strategy._register_ddp_hooks()
