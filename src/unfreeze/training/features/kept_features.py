"""A callback that judges a model by features of its backbone that runs have kept."""

from contextlib import suppress

import lightning as L

from unfreeze.models.partition import partition_network
from unfreeze.models.tracing import CannotPartitionError
from unfreeze.training.features.demand import JUDGED, Demand, PrefixCacheOptions, data_of, is_whole
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.features.table import CachedPrefix
from unfreeze.training.module import ImageClassifier


class JudgeByKeptFeatures(L.Callback):
    """Feeds a test the features at the head's edge where those of validation are kept for the weights as they are.

    Args:
        options: Where features are kept.
    """

    def __init__(self, options: PrefixCacheOptions) -> None:
        self._options = options
        self._features: StageFeatures | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Feed the split that is tested."""
        assert isinstance(pl_module, ImageClassifier)
        data = data_of(trainer)
        if is_whole(trainer.limit_test_batches) and len(data.splits.val):
            with suppress(CannotPartitionError):
                self._feed(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of the features."""
        if self._features is not None:
            assert isinstance(pl_module, ImageClassifier)
            pl_module.cached = None
            data_of(trainer).serve_images_but_for([])
            self._features.close()
            self._features = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let go of the features too: there is no teardown then."""
        self.teardown(trainer, pl_module, "test")

    def _feed(self, trainer: L.Trainer, module: ImageClassifier) -> None:
        data, groups = data_of(trainer), module.classifier.groups
        partition = partition_network(module.network, groups, [groups[0].name], image_shape=module.preprocessing.shape)
        if partition is None:
            return
        features = StageFeatures(trainer, module, partition, self._options)
        features.want(Demand(JUDGED, data.splits.parts[data.tested], 0))
        usable = trainer.is_global_zero and features.has(JUDGED, data.splits.val) and features.find_place() is None
        if trainer.strategy.broadcast(usable):
            self._features = features
            module.cached = CachedPrefix(partition.suffix, None, features.table(JUDGED))
            data.serve_images_but_for([data.tested], are_vectors=features.is_pooled)
