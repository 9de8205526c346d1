"""What a plan would cost and cache, said before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unfreeze.cachefolder import size_text
from unfreeze.config import Config

if TYPE_CHECKING:
    from unfreeze.models.dry import Edge
    from unfreeze.training.plan import Plan


@dataclass(frozen=True)
class CachedEdge:
    """What a stage would cache of its training images.

    Args:
        stage: Index of the stage.
        edge: Where the network would be cut.
        views: The versions of each image that would be kept.
    """

    stage: int
    edge: "Edge"
    views: int


def cached_edges(config: Config, plan: "Plan", num_classes: int) -> list[CachedEdge]:
    """Return what the stages of a plan would cache of their training images, without loading weights."""
    from unfreeze.data.augment.augment import PRESETS, augmentation
    from unfreeze.models.dry import find_edge
    from unfreeze.training.demand import count_views

    size, found = _crop_px(config), []
    for index, stage in enumerate(plan.stages if config.cache.enabled else ()):
        how = PRESETS[stage.augment] if stage.augment else augmentation(**config.augment.model_dump())  # type: ignore[index]
        views = count_views(how, config.cache.views)
        edge = find_edge(config.model.spec, num_classes, size_px=size, live=stage.groups) if views else None
        counts = edge is not None and edge.keeps_statistics and plan.frozen_norm == "train"
        if edge is not None and not counts and (views < stage.epochs or stage.solver):
            found.append(CachedEdge(index, edge, views))
    return found


def describe_cache(edges: "Sequence[CachedEdge]", plan: "Plan", images: int) -> list[str]:
    """Return for each stage of a plan up to where its training images would be cached, and what that takes."""
    cells = ["-"] * len(plan.stages)
    for cached in edges:
        nbytes = cached.edge.row_bytes * cached.views * images
        cells[cached.stage] = f"{cached.edge.name} ({size_text(nbytes)})"
    return cells


def estimate_savings(config: Config, edges: "Sequence[CachedEdge]", plan: "Plan", images: int, num_classes: int) -> str:
    """Return a line that says what a cache would save, by a moment's timing with random weights on this CPU."""
    from unfreeze.models.dry import prefix_seconds
    from unfreeze.training.progress import format_seconds

    told = []
    for cached in edges:
        stage = plan.stages[cached.stage]
        each = prefix_seconds(config.model.spec, num_classes, size_px=_crop_px(config), live=stage.groups)
        saved = each * images * (stage.epochs - cached.views)
        if saved >= 1:
            told.append(f"{stage.name} about {format_seconds(saved)}")
    return f"cached features save {', '.join(told)} on this machine's CPU" if told else ""


def _crop_px(config: Config) -> int:
    from unfreeze.models.architecture import find_architecture

    return find_architecture(config.model.spec).preprocessing(config.model.weights).at(config.data.image_size).crop_px


def forecast(config: Config, plan: "Plan", *, num_classes: int, images: int, timed: bool = False) -> str:
    """Return a plan as text, with what its stages would cache.

    Args:
        config: What was asked for.
        plan: What it comes to.
        num_classes: Of the data.
        images: To train on.
        timed: Whether to try on this CPU what the cache would save, which takes a moment.
    """
    from unfreeze.training.plan_text import format_plan

    edges = cached_edges(config, plan, num_classes)
    text = format_plan(plan, augment=config.augment.name, cached=describe_cache(edges, plan, images))
    savings = estimate_savings(config, edges, plan, images, num_classes) if timed and edges else ""
    notes = [describe_limits(config, plan), describe_ranks(config, images), savings]
    return "\n".join([text, *(f"  {note}" for note in notes if note)])


def describe_limits(config: Config, plan: "Plan") -> str:
    """Return a line that says which limits cut the plan of the stages; empty where none does."""
    asked = sum(stage.epochs for stage in config.strategy.stages)
    given = [f"trainer.{key}={config.trainer[key]}" for key in ("max_epochs", "max_steps") if config.trainer.get(key)]
    return f"cut from {asked} epochs by {' and '.join(given)}" if plan.epochs < asked else ""


def describe_ranks(config: Config, images: int) -> str:
    """Return a line that says how several ranks change the steps of an epoch; empty for one rank.

    Args:
        config: What was asked for.
        images: To train on.
    """
    from unfreeze.build import count_ranks
    from unfreeze.data.loader import steps_per_epoch

    ranks, each = count_ranks(config), config.data.batch_size
    if ranks == 1:
        return ""
    per_rank = min(each, -(-images // ranks))
    alone = steps_per_epoch(images, min(each, images))
    together = steps_per_epoch(images, per_rank, ranks)
    text = (
        f"{ranks} ranks with {per_rank} images each: {ranks * per_rank} a step, {together} steps an epoch for {alone}"
    )
    if config.optimizer.lr_batch is not None:
        return f"{text}; rates follow optimizer.lr_batch={config.optimizer.lr_batch}"
    return (
        f"{text}; rates stay; optimizer.lr_batch={each} would multiply SGD's by {ranks}, AdamW's by {ranks**0.5:.2f}, "
        f"data.batch_size={max(1, each // ranks)} keep the step"
    )
