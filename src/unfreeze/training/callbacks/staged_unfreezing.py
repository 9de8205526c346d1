"""Staged unfreezing: a callback that carries out a plan.

The stage is state, and applying it is idempotent: it is applied on setup, when a checkpoint is loaded, when the fit
starts and at each advance. Nothing is toggled but between steps.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer

from unfreeze.data.augment.presets import Augmentation, AugmentName
from unfreeze.errors import UnfreezeError
from unfreeze.models.groups import count_chosen
from unfreeze.models.state_dicts import load_state
from unfreeze.results.monitor import Mode, Score, is_better
from unfreeze.training.callbacks.stage_validation import EndOfStageValidation
from unfreeze.training.module import ImageClassifier
from unfreeze.training.param_groups import drop_frozen_state
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage, plan_differences, resolve_plan

log = logging.getLogger(__name__)

Snapshot = dict[str, Any]


class StagedUnfreezing(L.Callback):
    """Trains the stages of a plan one after the other and ends the fit when the last one ends.

    Under DDP with `find_unused_parameters` all parameters are registered before anything freezes. Under any other DDP
    the model is wrapped anew at each advance. Both keep the ranks' weights equal.

    Args:
        stages: What to train, stage by stage; or a plan that was resolved before.
        rates: Learning rates by depth; not with a plan.
        schedule: Schedule inside each stage; not with a plan.
        monitor: The logged metric that patience and `restore` go by.
        mode: Which way it is better.
        restore: Weights that the next stage starts from: the "best" of the stage before it, or the "last".
        frozen_norm: Frozen normalisation layers keep their statistics ("eval") or go on counting ("train").

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
        self.stage = 0
        self._epochs_in_stage = 0
        self._steps_in_stage = 0
        self._epochs_counted = 0
        self._waited = 0
        self._best: Score | None = None
        self._best_epoch = self._best_step = 0
        self._snapshot: Snapshot | None = None
        self._advance_pending = False
        self._complete = False
        self._end_validation = EndOfStageValidation()
        self._freezes_before_wrapping = True
        self._run_augment: Any = None
        self._run_optimizer: Any = None
        self._module: ImageClassifier | None = None

    @property
    def plan(self) -> Plan:
        """The resolved plan; there from setup on."""
        if self._plan is None:
            raise RuntimeError("the plan is resolved when the trainer sets up; it is not there yet")
        return self._plan

    @property
    def complete(self) -> bool:
        """Whether the last stage has ended."""
        return self._complete

    @property
    def ends(self) -> bool:
        """Whether the current stage has ended, and another one follows."""
        return self._advance_pending

    @property
    def epochs_in_stage(self) -> int:
        """Epochs of the current stage that are done."""
        return self._epochs_in_stage

    @property
    def stage_best(self) -> tuple[Score | None, int, int]:
        """The best validation of the current stage, its epoch, counted from 1, and its optimizer step."""
        return self._best, self._best_epoch, self._best_step

    def describe_remaining(self) -> str:
        """Return the stages that have not been trained to their end, for a run that ended before its plan did."""
        current, *later = self.plan.stages[self.stage :]
        begun = [] if self.ends else [f"{current.name} ({self._epochs_in_stage} of {current.epochs} epochs done)"]
        return ", ".join([*begun, *(stage.name for stage in later)])

    # Lightning's hooks, in the order in which a fit calls them.

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Resolve the plan against the model and apply the current stage."""
        if stage != "fit":
            return
        if not isinstance(pl_module, ImageClassifier):
            raise TypeError(f"StagedUnfreezing trains an ImageClassifier, not a {type(pl_module).__name__}")
        _check_strategy(trainer.strategy)
        if self._module is not pl_module:
            self._module = pl_module
            self._run_augment, self._run_optimizer = pl_module.augment, pl_module.optimizer_spec
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
        """Take up a saved stage, before an optimizer is made or DDP wraps.

        Raises:
            UnfreezeError: If the saved plan is another one, saying what differs.
        """
        saved = Plan.from_dict(state_dict["plan"])
        if self._plan is not None and saved != self._plan:
            raise UnfreezeError(
                f"resume: the plan has changed: {'; '.join(plan_differences(saved, self._plan))}. "
                "Resume with the settings of the run, or start a new one"
            )
        self._plan = saved
        self.stage = state_dict["stage"]
        self._epochs_in_stage = state_dict["epochs_in_stage"]
        self._steps_in_stage = state_dict["steps_in_stage"]
        self._epochs_counted = state_dict["epochs_counted"]
        self._waited = state_dict["waited"]
        value = state_dict["best_score"]
        self._best = None if value is None else Score(value, state_dict.get("best_loss", math.inf))
        self._best_epoch, self._best_step = state_dict["best_epoch"], state_dict.get("best_step", 0)
        self._snapshot = state_dict["snapshot"]
        self._advance_pending = state_dict["advance_pending"]
        self._complete = state_dict["complete"]
        if self._module is not None:
            self._apply(freeze=self._freezes_before_wrapping)

    def state_dict(self) -> dict[str, Any]:
        """Return the plan, the stage and all that decides when it ends, in plain values and tensors."""
        return {
            "plan": self.plan.to_dict(),
            "stage": self.stage,
            "epochs_in_stage": self._epochs_in_stage,
            "steps_in_stage": self._steps_in_stage,
            "epochs_counted": self._epochs_counted,
            "waited": self._waited,
            "best_score": None if self._best is None else self._best.value,
            "best_loss": math.inf if self._best is None else self._best.loss,
            "best_epoch": self._best_epoch,
            "best_step": self._best_step,
            "snapshot": self._snapshot,
            "advance_pending": self._advance_pending,
            "complete": self._complete,
        }

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze after DDP has registered what it must know."""
        self._apply(freeze=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Apply the stage once more: a resume in mid-epoch starts here."""
        self._apply(freeze=True)
        drop_frozen_state(trainer.optimizers[0])
        if self._complete:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Carry out the advance that the end of the last epoch decided on."""
        if self._advance_pending:
            self._advance(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set every group's rate for the coming step; the last step of a stage is followed by a validation."""
        batches, planned = int(trainer.num_training_batches), self.plan.stages[self.stage]
        if batch_idx + 1 == batches and self._epochs_in_stage + 1 == planned.epochs:
            self._end_validation.demand(trainer)
        progress = min(1.0, (self._steps_in_stage + 0.5) / (batches * planned.horizon))
        rates = self.plan.rates(self.stage, progress)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rates.get(group["layer_group"], 0.0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; where `max_steps` ends the fit, validate what it ends with."""
        self._steps_in_stage += 1
        if has_reached_max_steps(trainer):
            self._end_validation.demand(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the live weights where this validation is the best of the stage."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score, best = monitored_score(trainer, self.monitor), self._best
        improved = is_better(score.value, None if best is None else best.value, self.mode)
        self._waited = 0 if improved else self._waited + 1
        if score.beats(best, self.mode):
            self._best, self._best_epoch, self._best_step = score, trainer.current_epoch + 1, trainer.global_step
            if self._will_restore:
                self._snapshot = self._take_snapshot(trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide whether the stage ends; a resume at an epoch's end calls this twice, and counts it once."""
        self._end_validation.restore(trainer)
        epoch = trainer.current_epoch + 1
        if epoch <= self._epochs_counted:
            return
        self._epochs_counted = epoch
        self._epochs_in_stage += 1
        planned = self.plan.stages[self.stage]
        exhausted = planned.patience is not None and self._waited >= planned.patience
        ends = trainer.strategy.reduce_boolean_decision(exhausted or self._epochs_in_stage >= planned.epochs, all=False)
        out_of_steps = has_reached_max_steps(trainer)
        if ends and not out_of_steps and self.stage + 1 < len(self.plan.stages):
            self._advance_pending = True
        elif ends or out_of_steps:
            self._complete = True
            trainer.should_stop = True

    def augmentation_of(self, stage: int) -> "AugmentName | Augmentation":
        """Return how the training images of a stage are augmented."""
        return cast("AugmentName | Augmentation", self.plan.stages[stage].augment or self._run_augment)

    # What the hooks do.

    @property
    def _will_restore(self) -> bool:
        return self.plan.restore == "best" and self.stage + 1 < len(self.plan.stages)

    def _apply(self, *, freeze: bool) -> None:
        module, planned = self._attached, self.plan.stages[self.stage]
        if freeze:
            module.set_live_groups(frozenset(planned.groups), self.plan.frozen_norm, planned.only)
        module.augment = self.augmentation_of(self.stage)
        module.optimizer_spec = replace(self._run_optimizer, name=planned.optimizer)

    def _advance(self, trainer: L.Trainer) -> None:
        """Go to the next stage: restore, thaw, and let DDP know."""
        before = self.plan.stages[self.stage]
        if self._snapshot is not None:
            self._restore_snapshot(trainer.optimizers[0], self._snapshot)
        if trainer.is_global_zero:
            log.info(self._describe_advance())
        self.stage += 1
        self._epochs_in_stage = self._steps_in_stage = self._waited = self._best_epoch = self._best_step = 0
        self._best = self._snapshot = None
        self._advance_pending = False
        self._apply(freeze=True)
        if self.plan.stages[self.stage].optimizer != before.optimizer:
            trainer.optimizers = [self._attached.configure_optimizers()]
        drop_frozen_state(trainer.optimizers[0])
        if isinstance(trainer.strategy, DDPStrategy) and not _registers_everything(trainer.strategy):
            _rewrap(trainer.strategy)

    def _describe_advance(self) -> str:
        before, after = self.plan.stages[self.stage], self.plan.stages[self.stage + 1]
        thawed = [group for group in self.plan.groups if group.name in set(after.groups) - set(before.groups)]
        frozen = [name for name in before.groups if name not in after.groups]
        changes = []
        if thawed:
            names = ", ".join(group.name for group in thawed)
            added = f"{sum(group.parameters for group in thawed):,} parameters"
            if after.only is not None:
                added = f"{', '.join(after.only)} alone, {self.plan.trainable(self.stage + 1):,} parameters in all"
            changes.append(f"{names} unfrozen ({added})")
        if frozen:
            changes.append(f"{', '.join(frozen)} frozen")
        if self._snapshot is not None and self._best is not None:
            score = f"{self.monitor} {self._best.value:.3f}"
            changes.append(f"best of {before.name} restored (epoch {self._best_epoch}, {score})")
        return f"→ {after.name}: {', '.join(changes) or 'the same groups'}"

    @property
    def _attached(self) -> ImageClassifier:
        assert self._module is not None, "setup has attached a module"
        return self._module

    def _take_snapshot(self, optimizer: Optimizer) -> Snapshot:
        """Copy to the CPU what the stage trains: weights, buffers, moments. What is frozen has not changed."""
        network = self._attached.network
        live = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
        frozen = {key for key, _ in network.named_parameters()} - live
        moments = {
            key: {name: _to_cpu(value) for name, value in optimizer.state.get(network.get_parameter(key), {}).items()}
            for key in sorted(live)
        }
        weights = {key: _to_cpu(value) for key, value in network.state_dict().items() if key not in frozen}
        return {"weights": weights, "moments": moments}

    def _restore_snapshot(self, optimizer: Optimizer, snapshot: Snapshot) -> None:
        network = self._attached.network
        load_state(network, snapshot["weights"], strict=False)
        for key, moments in snapshot["moments"].items():
            parameter = network.get_parameter(key)
            state = optimizer.state.get(parameter, {})
            for name, value in moments.items():
                kept = state.get(name)
                state[name] = value.to(kept.device, copy=True) if isinstance(kept, Tensor) else value


def groups_of(module: ImageClassifier) -> tuple[Group, ...]:
    """Return the layer groups of a module as a plan wants them."""
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
    """Wrap anew, so that DDP registers what is live now; tests pin this private door of Lightning."""
    module = strategy.lightning_module
    assert module is not None
    strategy.model = module
    strategy.model = strategy._setup_model(module)
    strategy._register_ddp_hooks()


def monitored_score(trainer: L.Trainer, monitor: str) -> Score:
    """Return what the last validation is chosen by, the first rank's on all ranks.

    Raises:
        UnfreezeError: If nothing logs it, with what is logged.
    """
    if monitor not in trainer.callback_metrics:
        logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
        raise UnfreezeError(f"monitor: nothing logs {monitor!r}; what is logged: {logged}")
    return Score(*trainer.strategy.broadcast(tuple(Score.of(trainer.callback_metrics, monitor))))


def has_reached_max_steps(trainer: L.Trainer) -> bool:
    """Return whether the Trainer's `max_steps` ends the fit now."""
    return 0 <= trainer.max_steps <= trainer.global_step


def _to_cpu(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
