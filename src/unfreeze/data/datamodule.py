"""LightningDataModule of a source: its images with the loaders of a fit."""

from typing import Any, Literal

import lightning as L

from unfreeze.data.image_data import ImageData
from unfreeze.data.loader import EvalLoader, FeatureRows, TrainLoader
from unfreeze.data.sources.images import Indices
from unfreeze.data.store.framing import Resize


class ImageDataModule(ImageData, L.LightningDataModule):
    """Data module of batches of uint8 images; its arguments are those of `ImageData`."""

    _train_loader: TrainLoader | None = None
    _val_loader: EvalLoader | None = None
    _train_features: FeatureRows | None = None
    _val_features: FeatureRows | None = None
    _saved_position: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Decode for the trainer's model, unless the images are decoded already."""
        if self._store is None:
            assert self.trainer is not None
            module: Any = self.trainer.lightning_module
            self.build_store(Resize.of(module.preprocessing))

    def train_dataloader(self) -> TrainLoader:
        """Return the shuffled batches of this rank."""
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        self._train_loader = TrainLoader(
            self.store.pixels,
            self._labels,
            self.splits.train,
            batch_size=min(self.batch_size, -(-len(self.splits.train) // world_size)),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            balance=self.balance,
            limit=trainer.limit_train_batches if trainer is not None else 1.0,
        )
        self._train_loader.serve_features(self._train_features)
        if self._saved_position is not None:
            self._train_loader.load_state_dict(self._saved_position)
            self._saved_position = None
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader, as Lightning restores it only within an epoch."""
        return {"train_loader": self._train_loader.state_dict()} if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved position when the training loader is built."""
        self._saved_position = state_dict.get("train_loader")

    def val_dataloader(self) -> EvalLoader:
        """Return the validation batches of this rank."""
        self._val_loader = self.eval_loader("val")
        self._val_loader.serve_features(self._val_features)
        return self._val_loader

    def test_dataloader(self) -> EvalLoader:
        """Return the test batches of this rank."""
        return self.eval_loader("test")

    def serve_features(self, *, train: FeatureRows | None = None, val: FeatureRows | None = None) -> None:
        """Serve cached features instead of images from the next epoch on.

        Args:
            train: Features of the training images; None to serve images.
            val: Features of the validation images; None to serve images.
        """
        self._train_features, self._val_features = train, val
        if self._train_loader is not None:
            self._train_loader.serve_features(train)
        if self._val_loader is not None:
            self._val_loader.serve_features(val)

    @property
    def is_within_epoch(self) -> bool:
        """Return whether some steps of a training epoch are done."""
        return self._train_loader is not None and self._train_loader.is_within_epoch

    def train_images_of(self, epochs: range) -> Indices:
        """Return the distinct images of some training epochs over all ranks."""
        assert self._train_loader is not None, "the training loader is not built yet"
        return self._train_loader.images_of(epochs)

    def eval_loader(self, split: Literal["val", "test"], trainer: L.Trainer | None = None) -> EvalLoader:
        """Return the batches of a split for this rank, in order.

        Args:
            split: Name of the split.
            trainer: Trainer that will iterate over the loader; None for that of the data module.
        """
        return super().eval_loader(split, trainer or self.trainer)
