"""The images of a source: splits, store and the loaders for evaluation."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfreeze.data.loader import EvalLoader
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.splits.splits import Splits, describe_splits, missing_classes, split_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import ImageStore, OnError, StoreOptions, build_store
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from lightning import Trainer


class ImageData:
    """Labelled images in splits, decoded once; all that evaluation needs.

    Args:
        source: Labelled images, such as those of `folder_source`, `manifest_source` or `digits_source`.
        batch_size: Images per step and device; at most the number of training images is used.
        labels: Labels of the batches, int64, shape (N,) or (N, T); None for those of the source's first task.
        splits: Splits of the images; None for those of the source, with a tenth of train for a missing one.
        split_seed: Seed of the splits.
        balance: Whether to balance the classes of an epoch; see `epoch_order`.
        seed: Seed of the order of the training images.
        store: Storage of the decoded pixels; None for the memory of this process.
        on_error: "raise" to refuse unreadable images, "skip" to leave them out of all splits.

    Attributes:
        decoded_for: Resize that the images were decoded for; None before decoding.

    Raises:
        UnfreezeError: If there are too few images for the splits.
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
        super().__init__()  # of LightningDataModule, in the data module
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

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.source.classes

    @property
    def labels(self) -> Tensor:
        """Labels of all images of the source, int64, shape (N,) or (N, T)."""
        return self._labels

    def relabel(self, labels: NDArray[np.int64]) -> None:
        """Replace the labels, int64, shape (N,) or (N, T), with indices in the evaluated model's class order."""
        self._labels = torch.from_numpy(labels)

    @property
    def store(self) -> ImageStore:
        """Decoded images; `build_store`, or for a data module a trainer, must have run before."""
        if self._store is None:
            raise RuntimeError("the images are not decoded yet; call build_store, or fit with a Trainer")
        return self._store

    def build_store(self, resize: Resize, progress: Callable[[int], None] | None = None) -> ImageStore:
        """Decode all images at the first call, and return the store.

        Args:
            resize: Resize of the backbone's preprocessing.
            progress: Callback with the number of decoded images; None for none.
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
            self._exclude(self._store.facts.unreadable)
        return self._store

    def _exclude(self, unreadable: Collection[int]) -> None:
        if not unreadable:
            return
        original, self.splits = self.splits, self.splits.without(np.fromiter(unreadable, dtype=np.int64))
        for name in ("train", "val"):
            if not len(getattr(self.splits, name)):
                count = len(getattr(original, name))
                raise UnfreezeError(f"data.on_error: none of the {count:,} {name} images can be read; fix some of them")
        before, after = (set(self.source.labels[splits.train].tolist()) for splits in (original, self.splits))
        if before - after:
            lost = ", ".join(repr(self.classes[label]) for label in sorted(before - after)[:10])
            raise UnfreezeError(
                f"data.on_error: no training image of {lost} can be read; fix some, or remove the class"
            )
        self.batch_size = min(self.batch_size, len(self.splits.train))

    def missing_classes(self, split: str) -> list[str]:
        """Return the classes without images in a split; none if the whole split is empty."""
        tasks, indices = self.source.tasks, self.splits.parts[split]
        return [
            f"{task.name} {name}" if len(tasks) > 1 else name
            for task in tasks
            for name in missing_classes(indices, task.labels, task.classes)
        ]

    def describe_splits(self) -> dict[str, Any]:
        """Return a record that identifies the images of each split, with the names of unreadable images."""
        facts, name_of = self.store.facts, self.source.images.name
        described = describe_splits(
            self.splits, self.source.labels, classes=self.classes, digests=facts.digests, seed=self.split_seed
        )
        unreadable = {name_of(index): reason for index, reason in sorted(facts.unreadable.items())}
        return {"fingerprint": self.store.fingerprint, **described, "unreadable": unreadable}

    def eval_loader(self, split: Literal["val", "test"], trainer: "Trainer | None" = None) -> EvalLoader:
        """Return the batches of a split for this rank, in order.

        Args:
            split: Name of the split.
            trainer: Trainer that will iterate over the loader; None for this process alone.
        """
        return EvalLoader(
            self.store.pixels,
            self._labels,
            self.splits.parts[split],
            batch_size=self.batch_size,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
        )
