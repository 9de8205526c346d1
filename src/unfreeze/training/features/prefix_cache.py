"""A callback that extracts the features of a stage's frozen prefix once, and trains the stage on them."""

import logging
from collections.abc import Callable, Collection
from typing import Any

import lightning as L
import torch

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.models.partition import Partition, keeps_statistics, partition_network
from unfreeze.models.tracing import CannotPartitionError
from unfreeze.system.text import format_seconds, size_text
from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import JUDGED, Demand, data_of, is_whole
from unfreeze.training.features.extraction import Kind
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.features.table import ServedFeatures
from unfreeze.training.module import ImageClassifier

log = logging.getLogger(__name__)

Row = dict[str, Any]


class FrozenPrefixCache(L.Callback):
    """Serves a stage the activations at the edge of its frozen prefix, which are extracted once.

    Validation uses features wherever a prefix is frozen; training does if its images are the same in each epoch, or
    stored views take their place. Where the network can't be cut, or features would not save time, the stage runs on
    images.

    Args:
        stages: The callback whose stages are served.
        options: Options of the feature cache.
        on_ready: Called with the cache's entry for stages.json, when features are extracted or found.
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
        self._served: ServedFeatures | None = None

    @property
    def served(self) -> ServedFeatures | None:
        """The features that the current stage is served; None for images."""
        return self._served

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the stages come first."""
        if stage == "fit":
            check_comes_after(trainer, self, self._stages)

    def state_dict(self) -> dict[str, Any]:
        """Return what was decided for each stage, which a resume must follow."""
        return {"decisions": self._decisions, "copies": self._copies}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the decisions."""
        self._decisions = state_dict["decisions"]
        self._copies = state_dict.get("copies", {})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Serve features to a stage that is resumed in mid-epoch, where no epoch starts."""
        if data_of(trainer).is_within_epoch:
            self._feed(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Serve features to a stage that begins, or its next view."""
        self._feed(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Release all features."""
        self._close(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Release all features: Lightning calls no teardown then."""
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
        self._served = ServedFeatures(features.partition.suffix, train, evaluate, drawn_in)
        module.set_suffix(features.partition.suffix)
        data_of(trainer).serve_features(train=train, val=evaluate)
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
            features = StageFeatures(trainer, module, partition, self._options)
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
        if self._fed_splits and module.network._compiled_call_impl is not None and not features.is_pooled:
            features.partition.suffix.compile()
        return features if self._fed_splits else None

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
            module.set_suffix(None)
            data_of(trainer).serve_features()
            self._features.close()
        self._features, self._opened, self._served = None, None, None


def _train_demand(data: ImageDataModule, kind: Kind, epochs: range) -> Demand:
    images = data.train_images_of(epochs)
    return Demand(kind, images, len(images) * len(epochs))


def _partition(module: ImageClassifier, live: Collection[str]) -> Partition | None:
    shape = module.preprocessing.shape
    return partition_network(module.network, module.classifier.groups, live, image_shape=shape)


def _say(trainer: L.Trainer, text: str) -> None:
    if trainer.is_global_zero:
        log.info(f"  {'cached':<13} {text}")
