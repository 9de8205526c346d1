"""A callback that tests a model on features of its backbone that earlier runs have stored."""

from contextlib import suppress

import lightning as L

from unfreeze.data.image_data import ImageData
from unfreeze.data.loader import EvalLoader
from unfreeze.models.partition import partition_network
from unfreeze.models.tracing import CannotPartitionError
from unfreeze.training.features.demand import JUDGED, Demand, is_whole
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.module import ImageClassifier


class StoredFeatureTest(L.Callback):
    """Serves a test the features at the head's edge where those of validation are stored for the current weights.

    Args:
        options: Where features are stored.
        data: The images of the run.
    """

    def __init__(self, options: PrefixCacheOptions, data: ImageData) -> None:
        self._options = options
        self._data = data
        self._features: StageFeatures | None = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Serve stored features to the loader that is tested."""
        assert isinstance(pl_module, ImageClassifier)
        loader = trainer.test_dataloaders
        if isinstance(loader, EvalLoader) and is_whole(trainer.limit_test_batches) and len(self._data.splits.val):
            with suppress(CannotPartitionError):
                self._serve(trainer, pl_module, loader)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Release the features."""
        if self._features is not None:
            assert isinstance(pl_module, ImageClassifier)
            pl_module.set_suffix(None)
            self._features.close()
            self._features = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Release the features: Lightning calls no teardown then."""
        self.teardown(trainer, pl_module, "test")

    def _serve(self, trainer: L.Trainer, module: ImageClassifier, loader: EvalLoader) -> None:
        groups, shape = module.classifier.groups, module.preprocessing.shape
        partition = partition_network(module.network, groups, [groups[0].name], image_shape=shape)
        if partition is None:
            return
        features = StageFeatures(trainer, module, partition, self._options, data=self._data)
        features.want(Demand(JUDGED, loader.indices, 0))
        is_stored = trainer.is_global_zero and features.has(JUDGED, self._data.splits.val)
        if trainer.strategy.broadcast(is_stored and features.find_place() is None):
            self._features = features
            module.set_suffix(partition.suffix)
            loader.serve_features(features.table(JUDGED))
