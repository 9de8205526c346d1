"""Loaders of batches of uint8 images or cached features, in an order that is a function of seed and epoch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unfreeze.data.order import epoch_order, step_bounds, steps_per_epoch
from unfreeze.data.sources.images import Indices
from unfreeze.data.store.pixels import Pixels

_VECTORS = 4096
"""Images per batch of an evaluation on cached feature vectors."""


class Batch(NamedTuple):
    """A batch.

    Args:
        images: Images, uint8 from a loader, float32 after the transforms, shape (N, C, H, W); None if there are
            features.
        labels: Labels, int64, shape (N,), or with several tasks or labels shape (N, T).
        indices: Indices of the images in their source, int64, shape (N,); always on the host.
        targets: Share of each class in a mixed image, float32, shape (N, C); None without mixing.
        draw_keys: Keys of the random numbers of the augmentation, int64, shape (N,), on the host: the index, or
            another number for each repetition of an image in the epoch; None for the indices.
        features: Cached activations of the frozen prefix, tensors with a row per image; empty if there are images.
        soft_targets: Logits or features of the teacher, float, shape (N, D); None without a teacher.
    """

    images: Tensor | None
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    draw_keys: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    soft_targets: Tensor | None = None

    @property
    def pixels(self) -> Tensor:
        """The images, which must be present."""
        assert self.images is not None, "the batch has features, not images"
        return self.images


class FeatureRows(Protocol):
    """Cached activations with a row per image of the source."""

    @property
    def is_pooled(self) -> bool:
        """Return whether the row of an image is a vector."""
        ...

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of some images on the device of the cache.

        Args:
            indices: Indices of the images in their source, int64, shape (n,), on the host.
        """
        ...


class TrainLoader:
    """Loader of shuffled training batches with a resumable position.

    The images of a step do not depend on the number of ranks: each rank has every `world_size`-th of them. The last
    step is filled with images from the start of the epoch, so that all ranks have the same number of steps. A last
    batch of a single image, on which BatchNorm can't train, gets a second image from the batch before it.

    Args:
        pixels: Pixels of all images of the source.
        labels: Labels of all images, int64, shape (N,) or (N, T); `balance` uses the first column.
        indices: Indices of the training images.
        batch_size: Images per step and rank.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
        pin_memory: Whether to copy batches to page-locked memory.
        limit: Number of steps of an epoch, or their fraction, as the Trainer's `limit_train_batches`.
        balance: Whether to balance the classes of an epoch; see `epoch_order`.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor,
        indices: Indices,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        limit: float = 1.0,
        balance: bool = False,
    ) -> None:
        self._features: FeatureRows | None = None
        self._pixels = pixels
        self._labels = labels
        self._pin_memory = pin_memory
        self._indices = indices
        self._classes = labels.view(len(labels), -1)[:, 0].numpy()[indices]
        self._balance = balance
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._bounds = step_bounds(len(indices), batch_size, world_size)
        self._steps = steps_per_epoch(len(indices), batch_size, world_size, limit=limit)
        self._epoch = 0
        self._position = 0
        self._is_resumed = False

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        if self._position and not self._is_resumed:
            self._epoch, self._position = self._epoch + 1, 0
        self._is_resumed = False
        order = self._order(self._epoch)
        first = self._position
        chunks = [
            order[start + self._rank : stop : self._world_size]
            for start, stop in zip(self._bounds[first:], self._bounds[first + 1 :], strict=False)
        ]
        batches = _batches(self._pixels, self._features, self._labels, chunks, pin_memory=self._pin_memory)
        copies = torch.from_numpy(_copies(order) * len(self._labels))
        for step, batch in enumerate(batches, start=first):
            if step + 1 < self._steps:
                self._position = step + 1
            else:
                self._epoch, self._position = self._epoch + 1, 0
            own = slice(self._bounds[step] + self._rank, self._bounds[step + 1], self._world_size)
            yield batch._replace(draw_keys=batch.indices + copies[own])

    def serve_features(self, features: FeatureRows | None) -> None:
        """Serve cached features from the next epoch on; None for images."""
        self._features = features

    @property
    def is_within_epoch(self) -> bool:
        """Return whether some steps of the epoch are done."""
        return self._position > 0

    def images_of(self, epochs: range) -> Indices:
        """Return the distinct images of some epochs over all ranks: all of them, unless epochs are balanced."""
        if not self._balance:
            return np.unique(self._indices) if epochs else self._indices[:0]
        orders = [self._order(epoch) for epoch in epochs]
        return np.unique(np.concatenate(orders)) if orders else self._indices[:0]

    def _order(self, epoch: int) -> Indices:
        order = epoch_order(self._indices, self._classes, seed=self._seed, epoch=epoch, balance=self._balance)
        return np.resize(order, self._bounds[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the next step within it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved epoch and step."""
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._is_resumed = True


class EvalLoader:
    """Loader of batches in order: each image once over all ranks, and equal numbers of batches per rank.

    Args:
        pixels: Pixels of all images of the source.
        labels: Labels of all images, int64, shape (N,) or (N, T).
        indices: Indices of the images to evaluate.
        batch_size: Largest number of images per batch.
        rank: Rank of this process.
        world_size: Number of processes.
        pin_memory: Whether to copy batches to page-locked memory.

    Attributes:
        indices: Indices of the images of all ranks.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor,
        indices: Indices,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.indices = indices
        self._features: FeatureRows | None = None
        self._pixels = pixels
        self._labels = labels
        self._pin_memory = pin_memory
        self._batch_size = batch_size
        self._own = indices[rank::world_size]
        self._largest_share = -(-len(indices) // world_size)

    def __len__(self) -> int:
        """Return the number of batches of images; Lightning calls this once, and accepts fewer batches."""
        return -(-self._largest_share // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: whether to read features is decided when the first batch is requested.
        are_vectors = self._features is not None and self._features.is_pooled
        largest = max(_VECTORS, self._batch_size) if are_vectors else self._batch_size
        count = -(-self._largest_share // largest)
        chunks = np.array_split(self._own, count) if count else []
        yield from _batches(self._pixels, self._features, self._labels, chunks, pin_memory=self._pin_memory)

    def serve_features(self, features: FeatureRows | None) -> None:
        """Serve cached features from the next pass on, vectors in large batches; None for images."""
        self._features = features


def _batches(
    pixels: Pixels, features: FeatureRows | None, labels: Tensor, chunks: Sequence[Indices], *, pin_memory: bool
) -> Iterator[Batch]:
    """Yield a batch of images or of features for each chunk of indices."""
    if features is not None:
        return _feature_batches(features, labels, chunks)
    return _image_batches(pixels, labels, chunks, pin_memory=pin_memory)


def _feature_batches(features: FeatureRows, labels: Tensor, chunks: Sequence[Indices]) -> Iterator[Batch]:
    for chunk in chunks:
        index = torch.from_numpy(np.ascontiguousarray(chunk))
        yield Batch(None, labels.index_select(0, index), index, features=features.gather(index))


def _image_batches(pixels: Pixels, labels: Tensor, chunks: Sequence[Indices], *, pin_memory: bool) -> Iterator[Batch]:
    for chunk, images in zip(chunks, pixels.batches(chunks), strict=True):
        index = torch.from_numpy(np.ascontiguousarray(chunk))
        chosen = labels.index_select(0, index)
        yield Batch(images.pin_memory(), chosen.pin_memory(), index) if pin_memory else Batch(images, chosen, index)


def _copies(order: Indices) -> Indices:
    """Return the number of earlier occurrences of each image in an order."""
    by_image = np.argsort(order, kind="stable")
    images = order[by_image]
    starts = np.searchsorted(images, images)
    copies = np.empty(len(order), dtype=np.int64)
    copies[by_image] = np.arange(len(order)) - starts
    return copies
