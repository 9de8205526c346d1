"""A callback that computes what a stage keeps frozen once, and trains the stage on that."""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import lightning as L
import torch

from unfreeze.cache.folder import size_text
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.models.partition import Partition, keeps_statistics, partition_network
from unfreeze.models.tracing import CannotPartitionError
from unfreeze.system.text import format_seconds
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import JUDGED, Demand, PrefixCacheOptions, data_of, is_whole
from unfreeze.training.features.extraction import Kind
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.features.table import CachedPrefix
from unfreeze.training.module import ImageClassifier

log = logging.getLogger(__name__)

Row = dict[str, Any]


class FrozenPrefixCache(L.Callback):
    """Feeds a stage the activations at the edge of its frozen part, which it computes once.

    Validation is fed wherever something is frozen; training where its images are the same in each epoch, or where
    views stand for them. Where the network can't be cut, or it would not pay, the stage runs as it would without.

    Args:
        stages: The callback whose stages are fed; it must stand before this one.
        options: What is cached, and where.
        on_ready: Called with what stages.json says of a stage's cache, when features have been computed or found.
    """

    def __init__(
        self,
        stages: StagedUnfreezing,
        *,
        options: PrefixCacheOptions | None = None,
        on_ready: Callable[[Row], None] | None = None,
    ) -> None:
        self._stages = stages
        self._options = options or PrefixCacheOptions()
        self._on_ready = on_ready
        self._decisions: dict[str, dict[str, bool]] = {}
        self._copies: dict[str, str] = {}
        self._opened: int | None = None
        self._features: StageFeatures | None = None
        self._fed_splits: list[str] = []
        self._reported: int | None = None
        self._ahead: tuple[int, StageFeatures] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was decided for each stage, which a resume must follow."""
        return {"decisions": self._decisions, "copies": self._copies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was decided."""
        self._decisions = state_dict["decisions"]
        self._copies = state_dict.get("copies", {})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Feed a stage that is resumed in mid-epoch, where no epoch starts."""
        if data_of(trainer).is_within_epoch:
            self._feed(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Feed a stage that begins, or the next view."""
        self._feed(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of everything."""
        self._close(trainer, pl_module)
        self._drop_ahead()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let go of everything too: there is no teardown then."""
        self.teardown(trainer, pl_module, "fit")

    def _feed(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, ImageClassifier)
        try:
            self._feed_or_raise(trainer, module)
        except (OSError, torch.OutOfMemoryError) as problem:
            planned = self._stages.plan.stages[self._stages.stage]
            if trainer.world_size > 1 or planned.solver:
                raise
            self._close(trainer, module)
            self._opened = self._stages.stage
            _say(trainer, f"nothing in {planned.name}, since {str(problem).splitlines()[0]}")

    def _feed_or_raise(self, trainer: L.Trainer, module: ImageClassifier) -> None:
        if self._opened != self._stages.stage:
            self._close(trainer, module)
            self._opened = self._stages.stage
            self._features = self._open(trainer, module)
        features = self._features
        if features is None:
            return
        train, drawn_in = None, None
        if "train" in self._fed_splits:
            kinds = self._train_kinds(trainer, module)
            kind = kinds[self._stages.epochs_in_stage % len(kinds)]
            train, drawn_in = features.table(kind), kind.epoch
        evaluate = features.table(JUDGED) if "val" in self._fed_splits else None
        if features.how is not None:
            self._copies[self._stages.plan.stages[self._stages.stage].name] = features.how
        module.cached = CachedPrefix(features.partition.suffix, train, evaluate, drawn_in)
        data_of(trainer).serve_images_but_for(self._fed_splits, are_vectors=features.is_pooled)
        if features.computed != self._reported:
            self._report(trainer, features)

    def _open(self, trainer: L.Trainer, module: ImageClassifier) -> StageFeatures | None:
        """Return the features that a stage is fed, None where it runs without; decide which they are."""
        plan, planned = self._stages.plan, self._stages.plan.stages[self._stages.stage]
        self._fed_splits, self._reported = [], None
        try:
            partition = _partition(module, planned.groups)
            if partition is None:
                return None
            if plan.frozen_norm == "train" and keeps_statistics(partition.prefix):
                raise CannotPartitionError("frozen norms go on counting (strategy.frozen_norm=train)")
            features = self._take_ahead(trainer, module) or StageFeatures(trainer, module, partition, self._options)
        except CannotPartitionError as problem:
            _say(trainer, f"nothing in {planned.name}, since {problem}")
            return None
        if planned.name in self._copies:
            features.compute_as(self._copies[planned.name])
        demands = self._demands(trainer, module)
        if planned.name not in self._decisions:
            # Ranks measure different times, and must do the same.
            pays = {split: bool(planned.solver) or features.pays(demand) for split, demand in demands.items()}
            self._decisions[planned.name] = trainer.strategy.broadcast(pays)
        decided = self._decisions[planned.name]
        self._fed_splits = [split for split, demand in demands.items() if demand and decided.get(split)]
        for demand in (one for split in self._fed_splits for one in demands[split]):
            features.want(demand)
        lack = features.find_place() if self._fed_splits and trainer.is_global_zero else None
        lack = trainer.strategy.broadcast(lack)
        if lack is not None:
            _say(trainer, f"nothing in {planned.name}, since {lack}")
            self._fed_splits = []
        if self._fed_splits:
            if module.network._compiled_call_impl is not None and not features.is_pooled:
                features.partition.suffix.compile()
            self._look_ahead(trainer, module, features, [one for split in self._fed_splits for one in demands[split]])
        return features if self._fed_splits else None

    def _look_ahead(
        self, trainer: L.Trainer, module: ImageClassifier, features: StageFeatures, wanted: list[Demand]
    ) -> None:
        """Let features be computed by way of those that a later stage is fed, which are then there.

        What lies before that stage's edge must be frozen until then, and its images be the same.
        """
        if trainer.world_size > 1 or all(features.has(demand.kind, demand.images) for demand in wanted):
            return
        plan, now = self._stages.plan, self._stages.stage
        if self._ahead is None:
            for later in range(len(plan.stages) - 1, now, -1):
                ahead = self._open_ahead(trainer, module, later, wanted, features.nbytes)
                if ahead is not None:
                    self._ahead = later, ahead
                    break
        if self._ahead is None:
            return
        later, ahead = self._ahead
        if len(ahead.partition.groups) >= len(features.partition.groups):
            return
        if any(demand.kind not in ahead.kinds or ahead.lacks(demand) for demand in wanted):
            return
        with suppress(CannotPartitionError):
            features.start_from(ahead, plan.stages[now].groups, deeper_live=plan.stages[later].groups)

    def _open_ahead(
        self, trainer: L.Trainer, module: ImageClassifier, later: int, wanted: list[Demand], nbytes: int
    ) -> StageFeatures | None:
        """Return the features of a later stage where it is worth it to have them now."""
        stages, plan = self._stages, self._stages.plan
        planned, meanwhile = plan.stages[later], plan.stages[stages.stage : later]
        views = module.augmentation.count_views(self._options.views)
        same_images = stages.augmentation_of(later) == stages.augmentation_of(stages.stage)
        if "train" not in self._fed_splits or not same_images or views >= planned.epochs:
            return None
        try:
            partition = _partition(module, planned.groups)
            if partition is None or any(set(stage.groups) & set(partition.groups) for stage in meanwhile):
                return None
            ahead = StageFeatures(trainer, module, partition, self._options)
        except CannotPartitionError:
            return None
        for demand in wanted:
            ahead.want(demand)
        passes = sum(len(demand.images) for demand in wanted) / max(1, views) * planned.epochs
        shared = [Demand(demand.kind, demand.images, int(passes / len(wanted))) for demand in wanted]
        if not ahead.pays(shared) or ahead.find_place(beside=nbytes) is not None:
            ahead.close()
            return None
        return ahead

    def _take_ahead(self, trainer: L.Trainer, module: ImageClassifier) -> StageFeatures | None:
        """Return the features of this stage where they were computed on the way to those of an earlier one."""
        if self._ahead is None or self._ahead[0] != self._stages.stage:
            return None
        _, features = self._ahead
        demands = [one for split in self._demands(trainer, module).values() for one in split]
        if any(demand.kind in features.kinds and features.lacks(demand) for demand in demands):
            self._drop_ahead()
            return None
        self._ahead = None
        features.forget_costs()
        return features

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1].close()
            self._ahead = None

    def _demands(self, trainer: L.Trainer, module: ImageClassifier) -> dict[str, list[Demand]]:
        """Return the features that a stage could be fed, by split."""
        data, first = data_of(trainer), trainer.current_epoch - self._stages.epochs_in_stage
        epochs = range(first, first + self._stages.plan.stages[self._stages.stage].epochs)
        kinds = self._train_kinds(trainer, module)
        train = [_train_demand(data, kind, epochs[view :: len(kinds)]) for view, kind in enumerate(kinds)]
        val = [Demand(JUDGED, data.splits.val, len(data.splits.val) * len(epochs))]
        return {
            "train": [one for one in train if one.passes],
            "val": val if is_whole(trainer.limit_val_batches) else [],
        }

    def _train_kinds(self, trainer: L.Trainer, module: ImageClassifier) -> list[Kind]:
        """Return the views that a stage trains on, one after the other; none where each epoch draws its own."""
        how, precision = module.augmentation, str(trainer.precision)
        views = range(how.count_views(self._options.views))
        return [Kind(view if how.is_random else None, precision, self._options.exact) for view in views]

    def _report(self, trainer: L.Trainer, features: StageFeatures) -> None:
        first = self._reported is None
        self._reported = features.computed
        name = self._stages.plan.stages[self._stages.stage].name
        row = {
            "boundary": features.partition.name,
            "megabytes": round(features.nbytes / 1e6, 1),
            "seconds": round(features.seconds, 3),
            "trial_seconds": round(features.trial_seconds, 3),
            "images": features.computed,
            "reused": features.computed == 0,
            "place": features.place,
            "faster": features.how or None,
            "splits": self._fed_splits,
        }
        if first:
            how = "found" if row["reused"] else f"{format_seconds(features.seconds)} for {features.computed:,} images"
            how += f" ({features.how})" if features.how else ""
            saved = f", saves about {format_seconds(features.saved_seconds)}" if features.saved_seconds >= 1 else ""
            what = " and ".join(self._fed_splits)
            _say(
                trainer,
                f"{name}: {what} up to {features.partition.name} · {size_text(features.nbytes)} {features.place} · "
                f"{how}{saved}",
            )
        if self._on_ready is not None:
            self._on_ready(row)

    def _close(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._features is not None:
            assert isinstance(module, ImageClassifier)
            module.cached = None
            data_of(trainer).serve_images_but_for([])
            self._features.close()
        self._features, self._opened = None, None


def _train_demand(data: ImageDataModule, kind: Kind, epochs: range) -> Demand:
    images = data.train_images_of(epochs)
    return Demand(kind, images, len(images) * len(epochs))


def _partition(module: ImageClassifier, live: Collection[str]) -> Partition | None:
    shape = module.preprocessing.shape
    return partition_network(module.network, module.classifier.groups, live, image_shape=shape)


def _say(trainer: L.Trainer, text: str) -> None:
    if trainer.is_global_zero:
        log.info(f"  {'cached':<13} {text}")
