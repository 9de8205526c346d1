"""A LightningDataModule over a source: splits, store, loaders."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from unfreeze.data.loader import EvalLoader, Indices, TrainLoader
from unfreeze.data.sources import ImageSource
from unfreeze.data.splits import Splits, build_splits
from unfreeze.data.store import ImageStore, build_store


class ImageDataModule(L.LightningDataModule):
    """Serves the images of a source as whole uint8 batches.

    Args:
        source: Labelled images, as `folder_source`, `cifar10_source` or `digits_source` give them.
        batch_size: Images per step and device; reduced to the number of training images where it is larger.
        val_fraction: Share of train to validate on where there is no val split, in (0, 1).
        test_fraction: Share of train to test on where there is no test split, in [0, 1).
        fraction: Share of the training images to use, per class, in (0, 1].
        split_seed: Cuts the splits.
        seed: Decides the order of the training images, together with the epoch.
        workers: Threads that decode; None for one per core.

    Raises:
        UnfreezeError: If there are too few images to cut the splits from.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        fraction: float = 1.0,
        split_seed: int = 0,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.splits: Splits = build_splits(
            source.splits,
            source.labels,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            fraction=fraction,
            seed=split_seed,
        )
        self.batch_size = min(batch_size, len(self.splits.train))
        self.seed = seed
        self.workers = workers
        self._labels = torch.from_numpy(source.labels)
        self._store: ImageStore | None = None
        self._train_loader: TrainLoader | None = None
        self._saved_position: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.source.classes

    @property
    def store(self) -> ImageStore:
        """The decoded images; `build_store` or a trainer must have run before."""
        if self._store is None:
            raise RuntimeError("the images are not decoded yet; call build_store, or fit with a Trainer")
        return self._store

    def build_store(
        self, resize_px: int, progress: Callable[[int], None] | None = None, *, interpolation: str = "bilinear"
    ) -> ImageStore:
        """Decode all images, once.

        Args:
            resize_px: Shorter side that the backbone's preprocessing resizes to.
            progress: Called with the number of images done.
            interpolation: Of that resize.
        """
        if self._store is None:
            self._store = build_store(
                self.source,
                resize_px=resize_px,
                interpolation=interpolation,
                workers=self.workers,
                progress=progress,
            )
        return self._store

    def setup(self, stage: str) -> None:
        """Decode for the model that the trainer holds, unless that was done."""
        if self._store is None:
            assert self.trainer is not None
            module: Any = self.trainer.lightning_module
            self.build_store(module.preprocessing.resize_px, interpolation=module.preprocessing.interpolation)

    def train_dataloader(self) -> TrainLoader:
        """Return the shuffled batches of this rank."""
        rank, world_size = self._ranks()
        self._train_loader = TrainLoader(
            self.store.images,
            self._labels,
            self.splits.train,
            batch_size=min(self.batch_size, -(-len(self.splits.train) // world_size)),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            pin_memory=self._on_gpu(),
            limit=self.trainer.limit_train_batches if self.trainer is not None else 1.0,
        )
        if self._saved_position is not None:
            self._train_loader.load_state_dict(self._saved_position)
            self._saved_position = None
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader; Lightning restores it by itself in mid-epoch only."""
        return {"train_loader": self._train_loader.state_dict()} if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved position when the training loader is made."""
        self._saved_position = state_dict.get("train_loader")

    def val_dataloader(self) -> EvalLoader:
        """Return the validation batches of this rank."""
        return self._eval_loader(self.splits.val)

    def test_dataloader(self) -> EvalLoader:
        """Return the test batches of this rank."""
        return self._eval_loader(self.splits.test)

    def _eval_loader(self, indices: Indices) -> EvalLoader:
        rank, world_size = self._ranks()
        return EvalLoader(
            self.store.images,
            self._labels,
            indices,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            pin_memory=self._on_gpu(),
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
