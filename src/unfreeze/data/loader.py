"""Whole batches of uint8 images, in an order that is a function of seed and epoch."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfreeze.data.order import epoch_order, step_bounds, steps_per_epoch
from unfreeze.data.sources.images import Indices
from unfreeze.data.store.pixels import Pixels


class Batch(NamedTuple):
    """One batch.

    Args:
        images: uint8 from a loader, float32 after the transforms, shape (N, C, H, W); empty, shape (0,), from a
            loader that serves none.
        labels: int64, shape (N,); of several tasks or labels, shape (N, T).
        indices: Position of each image in its source, int64, shape (N,); always on the host.
        targets: Share of each class in a mixed image, float32, shape (N, C); None where nothing is mixed.
        draw_keys: What its augmentation is drawn by, beside seed and epoch, int64, shape (N,), on the host: the
            position, and another number each time that an image stands in the same epoch again; None for the position.
        features: What a frozen prefix makes of the images, tensors with a row for each; empty where nothing is cached.
        taught: What a teacher says of the images, float, shape (N, D); None where there is no teacher.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    draw_keys: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    taught: Tensor | None = None


class TrainLoader:
    """Shuffled batches whose position can be saved and taken up again.

    The images of one step are the same whatever the number of ranks: each rank takes every `world_size`-th of them.
    The last step is filled up from the epoch's beginning so that ranks stay in step. A last batch of a single image,
    which BatchNorm can't learn from, borrows one from the batch before it.

    Args:
        pixels: All images of the source.
        labels: int64, shape (N,), or (N, T); `balance` goes by the first column.
        indices: The training images among them.
        batch_size: Images per step and rank.
        seed: Decides the order, together with the epoch.
        rank: This process.
        world_size: The number of processes.
        pin_memory: Put batches into page-locked memory.
        limit: Steps after which an epoch counts as done, or their share, as the Trainer's `limit_train_batches`.
        balance: Show each class equally often, as `epoch_order` does.

    Attributes:
        serves_images: Whether batches have images; without them they have labels and indices alone.
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
        self.serves_images = True
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
        self._taken_up = False

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        if self._position and not self._taken_up:
            self._epoch, self._position = self._epoch + 1, 0
        self._taken_up = False
        order = self._order(self._epoch)
        first = self._position
        chunks = [
            order[start + self._rank : stop : self._world_size]
            for start, stop in zip(self._bounds[first:], self._bounds[first + 1 :], strict=False)
        ]
        pixels = self._pixels if self.serves_images else None
        batches = _load(pixels, self._labels, chunks, pin_memory=self._pin_memory)
        copies = torch.from_numpy(_copies(order) * len(self._labels))
        for step, batch in enumerate(batches, start=first):
            if step + 1 < self._steps:
                self._position = step + 1
            else:
                self._epoch, self._position = self._epoch + 1, 0
            mine = slice(self._bounds[step] + self._rank, self._bounds[step + 1], self._world_size)
            yield batch._replace(draw_keys=batch.indices + copies[mine])

    @property
    def is_within_epoch(self) -> bool:
        """Whether some of the epoch's steps are done."""
        return self._position > 0

    def images_of(self, epochs: range) -> Indices:
        """Return the images that stand in some epochs, each once, over all ranks; all do where none is drawn."""
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
        """Go on from a saved epoch and step."""
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._taken_up = True


class EvalLoader:
    """Batches in order, every image exactly once over all ranks, the same number of batches on each.

    Args:
        pixels: All images of the source.
        labels: int64, shape (N,), or (N, T).
        indices: The images to evaluate on.
        batch_size: The most images per batch.
        rank: This process.
        world_size: The number of processes.
        pin_memory: Put batches into page-locked memory.

    Attributes:
        serves_images: Whether batches have images; without them they have labels and indices alone.
        vectors_per_batch: The most images per batch while none are served; None for as many as with them.
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
        self.serves_images = True
        self.vectors_per_batch: int | None = None
        self._pixels = pixels
        self._labels = labels
        self._pin_memory = pin_memory
        self._batch_size = batch_size
        self._mine = indices[rank::world_size]
        self._largest_share = -(-len(indices) // world_size)

    def __len__(self) -> int:
        """Return the number of batches with images; Lightning asks once, and takes an earlier end for what it is."""
        return -(-self._largest_share // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: whether images are served is asked when the first batch is, not before.
        pixels = self._pixels if self.serves_images else None
        largest = self._batch_size if self.serves_images else self.vectors_per_batch or self._batch_size
        count = -(-self._largest_share // largest)
        chunks = np.array_split(self._mine, count) if count else []
        yield from _load(pixels, self._labels, chunks, pin_memory=self._pin_memory)


def _load(pixels: Pixels | None, labels: Tensor, chunks: Sequence[Indices], *, pin_memory: bool) -> Iterator[Batch]:
    """Yield a batch for each chunk of indices, in page-locked memory where a GPU will fetch it."""
    no_images = repeat(torch.empty(0, dtype=torch.uint8), len(chunks))
    for chunk, images in zip(chunks, no_images if pixels is None else pixels.batches(chunks), strict=True):
        index = torch.from_numpy(np.ascontiguousarray(chunk))
        batch = Batch(images, labels.index_select(0, index), index)
        yield Batch(images.pin_memory(), batch.labels.pin_memory(), index) if pin_memory else batch


def _copies(order: Indices) -> Indices:
    """Return how often each image of an order has stood in it before."""
    by_image = np.argsort(order, kind="stable")
    of = order[by_image]
    starts = np.searchsorted(of, of)
    copies = np.empty(len(order), dtype=np.int64)
    copies[by_image] = np.arange(len(order)) - starts
    return copies
