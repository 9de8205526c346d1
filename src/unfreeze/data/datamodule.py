"""A LightningDataModule over a source: splits, store, loaders."""

from collections.abc import Callable, Collection
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.data.loader import EvalLoader, TrainLoader
from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.splits.splits import Splits, describe_splits, missing_classes, split_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import ImageStore, OnError, StoreOptions, build_store
from unfreeze.errors import UnfreezeError

_VECTORS = 4096
"""Per batch of evaluation."""


class ImageDataModule(L.LightningDataModule):
    """Serves the images of a source as whole uint8 batches.

    Args:
        source: Labelled images, as `folder_source`, `manifest_source`, `cifar10_source` or `digits_source` give them.
        batch_size: Images per step and device; reduced to the number of training images where it is larger.
        labels: What batches have as labels, int64, shape (N,) or (N, T); None for those of the source's first task.
        splits: Which images train, validate and test; None for the source's own, a tenth of train where one is missing.
        split_seed: What the splits were cut by, or are, where none are given.
        balance: Let each class stand equally often in an epoch, as in `epoch_order`.
        seed: Decides the order of the training images, together with the epoch.
        store: Where decoded pixels are kept; None for this process's memory.
        on_error: "raise" to refuse images that can't be read, "skip" to leave them out of all splits.

    Attributes:
        decoded_for: How images were resized as they were decoded; None before that.
        tested: The split that `Trainer.test` judges.

    Raises:
        UnfreezeError: If there are too few images to cut the splits from.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int = 64,
        labels: NDArray[np.int64] | None = None,
        splits: Splits | None = None,
        split_seed: int = 0,
        balance: bool = False,
        seed: int = 0,
        store: StoreOptions | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__()
        self.source = source
        self.splits = splits if splits is not None else split_source(source, seed=split_seed)
        self.batch_size = min(batch_size, len(self.splits.train))
        self.balance = balance
        self.seed = seed
        self.split_seed = split_seed
        self.store_options = store
        self.on_error: OnError = on_error
        self._labels = torch.from_numpy(source.labels if labels is None else labels)
        self._store: ImageStore | None = None
        self.decoded_for: Resize | None = None
        self.tested: Literal["val", "test"] = "test"
        self._train_loader: TrainLoader | None = None
        self._eval_loaders: dict[str, EvalLoader] = {}
        self._without_images: frozenset[str] = frozenset()
        self._are_vectors = False
        self._saved_position: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.source.classes

    @property
    def labels(self) -> Tensor:
        """What batches have as labels, of all images of the source."""
        return self._labels

    def relabel(self, labels: NDArray[np.int64]) -> None:
        """Let batches have other labels, as whoever is judged counts them, int64, shape (N,) or (N, T)."""
        self._labels = torch.from_numpy(labels)

    @property
    def store(self) -> ImageStore:
        """The decoded images; `build_store` or a trainer must have run before."""
        if self._store is None:
            raise RuntimeError("the images are not decoded yet; call build_store, or fit with a Trainer")
        return self._store

    def build_store(self, resize: Resize, progress: Callable[[int], None] | None = None) -> ImageStore:
        """Decode all images, once.

        Args:
            resize: As the backbone's preprocessing has it.
            progress: Called with the number of images done.
        """
        if self._store is None:
            self.decoded_for = resize
            self._store = build_store(
                self.source,
                resize,
                options=self.store_options,
                on_error=self.on_error,
                progress=progress,
            )
            self._leave_out(self._store.facts.unreadable)
        return self._store

    def _leave_out(self, unreadable: Collection[int]) -> None:
        if not unreadable:
            return
        given, self.splits = self.splits, self.splits.without(np.fromiter(unreadable, dtype=np.int64))
        for name in ("train", "val"):
            if not len(getattr(self.splits, name)):
                count = len(getattr(given, name))
                raise UnfreezeError(
                    f"data.on_error: none of the {count:,} {name} images can be read; mend some of them"
                )
        before, after = (set(self.source.labels[splits.train].tolist()) for splits in (given, self.splits))
        if before - after:
            lost = ", ".join(repr(self.classes[label]) for label in sorted(before - after)[:10])
            raise UnfreezeError(
                f"data.on_error: no training image of {lost} can be read; mend some, or remove the class"
            )
        self.batch_size = min(self.batch_size, len(self.splits.train))

    def missing_classes(self, split: str) -> list[str]:
        """Return the classes that a split has no images of; none for a split that is empty as a whole."""
        tasks, indices = self.source.tasks, self.splits.parts[split]
        return [
            f"{task.name} {name}" if len(tasks) > 1 else name
            for task in tasks
            for name in missing_classes(indices, task.labels, task.classes)
        ]

    def describe_splits(self) -> dict[str, Any]:
        """Return what proves which images were in which split, with the names of those that were left out."""
        facts, names = self.store.facts, self.source.images.name
        described = describe_splits(
            self.splits, self.source.labels, classes=self.classes, digests=facts.digests, seed=self.split_seed
        )
        unreadable = {names(index): reason for index, reason in sorted(facts.unreadable.items())}
        return {"fingerprint": self.store.fingerprint, **described, "unreadable": unreadable}

    def setup(self, stage: str) -> None:
        """Decode for the model that the trainer holds, unless that was done."""
        if self._store is None:
            assert self.trainer is not None
            module: Any = self.trainer.lightning_module
            self.build_store(Resize.of(module.preprocessing))

    def train_dataloader(self) -> TrainLoader:
        """Return the shuffled batches of this rank."""
        rank, world_size = self._ranks()
        self._train_loader = TrainLoader(
            self.store.pixels,
            self._labels,
            self.splits.train,
            batch_size=min(self.batch_size, -(-len(self.splits.train) // world_size)),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            pin_memory=self._on_gpu(),
            balance=self.balance,
            limit=self.trainer.limit_train_batches if self.trainer is not None else 1.0,
        )
        self._train_loader.serves_images = "train" not in self._without_images
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
        return self._eval_loader("val")

    def test_dataloader(self) -> EvalLoader:
        """Return the batches of this rank of the split that is tested."""
        return self._eval_loader(self.tested)

    def serve_images_but_for(self, splits: Collection[str], *, are_vectors: bool = False) -> None:
        """Leave the images out of the batches of some splits, from their next epoch on; labels and indices remain.

        Args:
            splits: Names of them.
            are_vectors: Whether vectors take their place: then evaluation has few batches, and large ones.
        """
        self._without_images, self._are_vectors = frozenset(splits), are_vectors
        if self._train_loader is not None:
            self._train_loader.serves_images = "train" not in self._without_images
        for split, loader in self._eval_loaders.items():
            self._tell(loader, split)

    def _tell(self, loader: EvalLoader, split: str) -> None:
        loader.serves_images = split not in self._without_images
        loader.vectors_per_batch = max(_VECTORS, self.batch_size) if self._are_vectors else None

    @property
    def is_within_epoch(self) -> bool:
        """Whether some steps of a training epoch are done."""
        return self._train_loader is not None and self._train_loader.is_within_epoch

    def train_images_of(self, epochs: range) -> Indices:
        """Return the images that stand in some training epochs, each once, over all ranks."""
        assert self._train_loader is not None, "the trainer has asked for the training batches"
        return self._train_loader.images_of(epochs)

    def _eval_loader(self, split: Literal["val", "test"]) -> EvalLoader:
        rank, world_size = self._ranks()
        indices: Indices = getattr(self.splits, split)
        loader = self._eval_loaders[split] = EvalLoader(
            self.store.pixels,
            self._labels,
            indices,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            pin_memory=self._on_gpu(),
        )
        self._tell(loader, split)
        return loader

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
