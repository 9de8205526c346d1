"""The estimate of a plan: cached features, their size and what they save, before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze.config.schema import Config
from unfreeze.data.augment.presets import PRESETS, augmentation
from unfreeze.data.order import steps_per_epoch
from unfreeze.models.outline import Edge, find_outline
from unfreeze.runs.builders.plan import build_plan, cut_to_limits
from unfreeze.runs.builders.source import count_images
from unfreeze.runs.builders.trainer_arguments import count_ranks
from unfreeze.system.text import size_text
from unfreeze.training.plan.plan import Plan
from unfreeze.training.plan.text import format_plan

_WORTH_TELLING = 0.01
"""Of the multiply-adds of an image."""


@dataclass(frozen=True)
class CachedEdge:
    """The features that a stage would cache of its training images.

    Args:
        stage: Index of the stage.
        edge: Where the network would be cut.
        views: The versions of each image that would be kept.
    """

    stage: int
    edge: Edge
    views: int


def cached_edges(config: Config, plan: Plan, num_classes: int) -> list[CachedEdge]:
    """Return what the stages of a plan would cache of their training images, without loading weights."""
    outline = find_outline(config.model.spec)
    size, found = config.data.image_size or outline.crop_px(config.model.weights), []
    for index, stage in enumerate(plan.stages if config.cache.enabled else ()):
        how = PRESETS[stage.augment] if stage.augment else augmentation(**config.augment.model_dump())  # type: ignore[index]
        views = how.count_views(config.cache.views)
        edge = outline.find_edge(num_classes, size_px=size, live=stage.groups) if views else None
        counts = edge is not None and edge.keeps_statistics and plan.frozen_norm == "train"
        if edge is not None and not counts and (views < stage.epochs or stage.solver):
            found.append(CachedEdge(index, edge, views))
    return found


def describe_cache(edges: Sequence[CachedEdge], plan: Plan, images: int) -> list[str]:
    """Return for each stage of a plan up to where its training images would be cached, and what that takes."""
    cells = ["-"] * len(plan.stages)
    for cached in edges:
        nbytes = cached.edge.row_bytes * cached.views * images
        cells[cached.stage] = f"{cached.edge.name} ({size_text(nbytes)})"
    return cells


def describe_savings(edges: Sequence[CachedEdge], plan: Plan) -> str:
    """Return a line with the part of the network that cached stages compute once; empty without any."""
    told = []
    for cached in edges:
        stage = plan.stages[cached.stage]
        if stage.epochs > cached.views and cached.edge.share >= _WORTH_TELLING:
            times = "once" if cached.views == 1 else f"{cached.views} times"
            share = f"about {cached.edge.share:.0%} of the network"
            told.append(f"{stage.name} computes {share} {times}, not {stage.epochs} times")
    return f"cached features: {', '.join(told)}" if told else ""


def format_estimate(config: Config, plan: Plan, *, num_classes: int, images: int) -> str:
    """Return a plan as text, with what its stages would cache.

    Args:
        config: What was asked for.
        plan: What it comes to.
        num_classes: Of the data.
        images: To train on.
    """
    edges = cached_edges(config, plan, num_classes)
    text = format_plan(plan, augment=config.augment.name, cached=describe_cache(edges, plan, images))
    notes = [describe_limits(config, plan), describe_ranks(config, images), describe_savings(edges, plan)]
    return "\n".join([text, *(f"  {note}" for note in notes if note)])


def describe_limits(config: Config, plan: Plan) -> str:
    """Return a line with the limits that shorten the plan; empty without any."""
    asked = sum(stage.epochs for stage in config.strategy.stages)
    given = [f"trainer.{key}={config.trainer[key]}" for key in ("max_epochs", "max_steps") if config.trainer.get(key)]
    return f"cut from {asked} epochs by {' and '.join(given)}" if plan.epochs < asked else ""


def describe_ranks(config: Config, images: int) -> str:
    """Return a line with the steps of an epoch on several ranks; empty for one rank.

    Args:
        config: What was asked for.
        images: To train on.
    """
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


def describe_plan(config: Config) -> str:
    """Return the plan of a configuration as text, without loading weights or decoding images."""
    outputs, images = count_images(config)
    plan = cut_to_limits(config, build_plan(config, outputs), images)
    return format_estimate(config, plan, num_classes=len(outputs), images=images)
