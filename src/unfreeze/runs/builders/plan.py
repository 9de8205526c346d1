"""The plan of a configuration: its stages resolved against the layer groups of its backbone."""

from typing import Any

from unfreeze.config.schema import Config
from unfreeze.data.order import steps_per_epoch
from unfreeze.errors import UnfreezeError
from unfreeze.models.outline import Outline, find_in_catalog, find_outline
from unfreeze.models.outputs import Outputs
from unfreeze.models.spec import HeadSpec
from unfreeze.runs.builders.trainer_arguments import bare_trainer, count_ranks
from unfreeze.training.plan.limits import cut_plan, epochs_of_steps
from unfreeze.training.plan.plan import Group, Plan, Rates, Stage
from unfreeze.training.plan.resolve import resolve_plan

_ANY_CLASSES = 2
"""Placeholder for the number of classes while a plan is checked before the images are read."""


def build_plan(config: Config, outputs: Outputs) -> Plan:
    """Return the plan of a configuration, without loading weights.

    Raises:
        UnfreezeError: If model, weights, image size or stages are not to be had.
    """
    return _build_plan(config, find_outline(config.model.spec), len(outputs), config.head.spec(outputs))


def check_by_catalog(config: Config) -> None:
    """Refuse names, weights and layer groups that the catalogue does not have, before torch is imported.

    Raises:
        UnfreezeError: If there is no such network, or it has no such weights or layer groups.
    """
    outline = find_in_catalog(config.model.spec)
    if outline is not None:
        _build_plan(config, outline, _ANY_CLASSES, HeadSpec())


def _build_plan(config: Config, outline: Outline, num_classes: int, head: HeadSpec) -> Plan:

    outline.check_weights(config.model.weights)
    if config.data.image_size is not None:
        outline.check_image_size(config.data.image_size)
    strategy = config.strategy
    _check_solvers(config)
    return resolve_plan(
        [Stage(**stage.model_dump(exclude={"lr"}), lr=_stage_lr(stage.lr)) for stage in strategy.stages],
        [Group(name, parameters) for name, parameters in outline.group_sizes(num_classes, head)],
        rates=Rates(**strategy.lr.model_dump()),
        schedule=config.optimizer.schedule,
        optimizer=config.optimizer.name,
        restore=strategy.restore,
        frozen_norm=strategy.frozen_norm,
        architecture=config.model.name,
        count=lambda live, only: outline.count_trainable(num_classes, live, only, head),
        scale=_rate_scale(config),
    )


def cut_to_limits(config: Config, plan: Plan, images: int) -> Plan:
    """Return a plan that ends where `trainer.max_epochs` or `trainer.max_steps` ends the fit.

    Args:
        config: Checked values.
        plan: What the stages come to.
        images: To train on.
    """
    epochs = config.trainer.get("max_epochs") or plan.epochs
    steps = config.trainer.get("max_steps")
    if steps is not None:
        ranks, limit = count_ranks(config), config.trainer.get("limit_train_batches") or 1.0
        batches = steps_per_epoch(images, min(config.data.batch_size, -(-images // ranks)), ranks, limit=limit)
        per_step = config.trainer.get("accumulate_grad_batches") or 1
        epochs = min(epochs, epochs_of_steps(steps, batches_per_epoch=batches, batches_per_step=per_step))
    return cut_plan(plan, epochs)


def _check_solvers(config: Config) -> None:
    """Refuse what a head that is solved can't follow."""
    for index, stage in enumerate(config.strategy.stages):
        if stage.solver is None:
            continue
        where = f"strategy.stages[{index}] {stage.name!r}: solver lbfgs"
        if (stage.augment or config.augment.name) != "none":
            raise UnfreezeError(f"{where} sees each image once, as it is; give the stage augment: none")
        if not config.cache.enabled:
            raise UnfreezeError(f"{where} works on cached features; leave out cache.enabled=false")
        if config.strategy.frozen_norm == "train":
            raise UnfreezeError(f"{where} works on features that stand still; leave out strategy.frozen_norm=train")
        if config.objective.label_smoothing or config.objective.loss != "cross_entropy":
            given = "objective.label_smoothing" if config.objective.label_smoothing else "objective.loss"
            raise UnfreezeError(f"{where} minimises the cross entropy itself; leave out {given}")
        if config.objective.name != "classify" or config.head.is_multitask:
            given = "head=multitask" if config.head.is_multitask else f"objective={config.objective.name}"
            raise UnfreezeError(f"{where} solves for one class per image; leave out {given}, or the solver")


def _rate_scale(config: Config) -> dict[str, float] | None:
    """Return what the rates of each optimizer are multiplied by for the global batch.

    SGD's grow with it (Goyal et al. 2017), those of the Adam family with its square root (Malladi et al. 2022).
    """
    if config.optimizer.lr_batch is None:
        return None
    batches = bare_trainer(config).world_size * (config.trainer.get("accumulate_grad_batches") or 1)
    ratio = config.data.batch_size * batches / config.optimizer.lr_batch
    return {"sgd": ratio, "adam": ratio**0.5, "adamw": ratio**0.5}


def _stage_lr(lr: Any) -> Any:
    return lr.model_dump(exclude_none=True) if hasattr(lr, "model_dump") else lr
