"""Activations of a frozen prefix, a row for each image: on the device, in memory, or in files that are mapped."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze.cache.folder import CacheEntry
from unfreeze.data.sources.images import Indices
from unfreeze.models.partition import Activations
from unfreeze.system.accelerator import to_device

_DONE = "done.npy"


@dataclass(frozen=True)
class RowLayout:
    """Memory layout of one activation of one image.

    Args:
        shape: As the network sees it, without the batch.
        order: Its dimensions as they follow each other in memory, so that channels last stay last.
        dtype: Of its values.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, activation: Tensor) -> "RowLayout":
        """Return the layout of an activation, shape (N, ...)."""
        strides = activation.stride()[1:]
        order = tuple(sorted(range(len(strides)), key=lambda dimension: (-strides[dimension], dimension)))
        return cls(tuple(activation.shape[1:]), order, activation.dtype)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of a row as it is stored."""
        return tuple(self.shape[dimension] for dimension in self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_pooled(self) -> bool:
        """True if a row is a vector."""
        return prod(self.shape[1:]) == 1

    def to_rows(self, activation: Tensor) -> Tensor:
        """Return an activation, shape (N, ...), as it is stored."""
        return activation.permute(0, *(dimension + 1 for dimension in self.order))

    def from_rows(self, rows: Tensor) -> Tensor:
        """Return stored rows as the network sees them."""
        return rows.permute(0, *(self.order.index(dimension) + 1 for dimension in range(len(self.order))))


def are_pooled(layouts: Sequence[RowLayout]) -> bool:
    """Return whether all activations of an image are vectors."""
    return all(layout.is_pooled for layout in layouts)


class FeatureTable:
    """Rows of the images of a source that batches are gathered from.

    Args:
        layouts: Of each activation.
        rows: The rows of each activation, shape (n, *stored_shape).
        slots: The row of each image of the source, int64, shape (N,), -1 for none; None where they are the same.
        place: The place of the rows, for messages.

    Attributes:
        is_pooled: Whether a row is of vectors alone.
    """

    def __init__(
        self, layouts: Sequence[RowLayout], rows: Sequence[Tensor], *, slots: Tensor | None = None, place: str
    ) -> None:
        self.layouts = tuple(layouts)
        self.is_pooled = are_pooled(layouts)
        self.place = place
        self._rows = list(rows)
        self._slots = slots

    @classmethod
    def allocate(
        cls, layouts: Sequence[RowLayout], wanted: Indices, *, images: int, device: torch.device
    ) -> "FeatureTable":
        """Return a table with room for some images of a source, on a device."""
        slots = slots_of(wanted, images=images)
        rows = [torch.empty((len(wanted), *each.stored_shape), dtype=each.dtype, device=device) for each in layouts]
        return cls(layouts, rows, slots=slots, place="in RAM" if device.type == "cpu" else f"on {device}")

    def copy_of(self, wanted: Indices, *, images: int, device: torch.device) -> "FeatureTable":
        """Return a table of some of these rows, on a device."""
        table = FeatureTable.allocate(self.layouts, wanted, images=images, device=device)
        for mine, theirs in zip(self._rows, table._rows, strict=True):
            for start in range(0, len(wanted), 1024):
                part = torch.from_numpy(wanted[start : start + 1024])
                theirs[start : start + len(part)].copy_(mine.index_select(0, self._slots_of(part)))
        return table

    def put(self, indices: Tensor, activations: Activations) -> None:
        """Store the activations of some images."""
        for rows, layout, activation in zip(self._rows, self.layouts, activations, strict=True):
            slots = to_device(self._slots_of(indices), rows.device)
            rows.index_copy_(0, slots, layout.to_rows(activation.detach()).to(rows.device, layout.dtype))

    def gather(self, indices: Tensor) -> Activations:
        """Return the activations of some images, where the rows are.

        Args:
            indices: Images of the source, int64, shape (n,), on the host.
        """
        slots = self._slots_of(indices)
        gathered = []
        for rows, layout in zip(self._rows, self.layouts, strict=True):
            chosen = rows.index_select(0, to_device(slots, rows.device))
            gathered.append(layout.from_rows(chosen))
        return tuple(gathered)

    def _slots_of(self, indices: Tensor) -> Tensor:
        return indices if self._slots is None else self._slots.index_select(0, indices)


def slots_of(wanted: Indices, *, images: int) -> Tensor:
    """Return the row of each image of a source, int64, shape (images,); -1 for those that are not wanted."""
    slots = torch.full((images,), -1, dtype=torch.int64)
    slots[torch.from_numpy(wanted)] = torch.arange(len(wanted))
    return slots


class FeatureFiles:
    """Rows in the files of an entry, and which of them are done; rows that are not take no room on most disks.

    Args:
        entry: Where the files are, or will be.
        layouts: Of each activation.
        images: The number of images of the source.
        wanted: The images that have a row, in order, shape (n,); None for all.
    """

    def __init__(
        self, entry: CacheEntry, layouts: Sequence[RowLayout], *, images: int, wanted: Indices | None = None
    ) -> None:
        self._entry = entry
        self._layouts = tuple(layouts)
        self._images = images
        self._wanted = wanted
        self._rows = images if wanted is None else len(wanted)
        self._paths = [entry.folder / f"rows{number}.bin" for number in range(len(layouts))]
        self._sizes = [self._rows * layout.nbytes for layout in layouts]

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files; 0 if they exist."""
        return 0 if all(path.is_file() for path in self._paths) else sum(self._sizes)

    def rows_of(self, images: Indices) -> Indices:
        """Return the rows of some images."""
        return images if self._wanted is None else np.searchsorted(self._wanted, images)

    def create(self) -> None:
        """Create the files that are missing, with no row done."""
        for path, size in zip(self._paths, self._sizes, strict=True):
            if not path.is_file() or path.stat().st_size != size:
                (self._entry.folder / _DONE).unlink(missing_ok=True)
                with path.open("wb") as file:
                    file.truncate(size)

    def reserve(self, rows: Indices) -> None:
        """Allocate disk space for some rows: on a full disk, writing to a mapped file would kill the process.

        Args:
            rows: In order, shape (n,).

        Raises:
            OSError: If there is no room.
        """
        if not hasattr(os, "posix_fallocate"):
            return
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        for path, layout in zip(self._paths, self._layouts, strict=True):
            with path.open("rb+") as file:
                for run in runs:
                    if len(run):
                        os.posix_fallocate(file.fileno(), int(run[0]) * layout.nbytes, len(run) * layout.nbytes)

    def done(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows are done, shape (rows,); none where the files are not whole."""
        nothing = np.zeros(self._rows, dtype=np.bool_)
        try:
            whole = all(path.stat().st_size == size for path, size in zip(self._paths, self._sizes, strict=True))
            done = np.load(self._entry.folder / _DONE, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return nothing
        return done if whole and done.shape == nothing.shape and done.dtype == np.bool_ else nothing

    def mark_done(self, done: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Record the rows that are done, after their values are on the disk."""
        for path in self._paths:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        with self._entry.write(_DONE) as path:
            np.save(path, done, allow_pickle=False)

    def table(self, *, writable: bool) -> FeatureTable:
        """Return the files as a table, whose rows may be put where it is writable."""
        rows = [
            torch.from_file(str(path), shared=writable, size=self._rows * prod(layout.shape), dtype=layout.dtype).view(
                self._rows, *layout.stored_shape
            )
            for path, layout in zip(self._paths, self._layouts, strict=True)
        ]
        slots = None if self._wanted is None else slots_of(self._wanted, images=self._images)
        return FeatureTable(self._layouts, rows, slots=slots, place="mapped from disk")


@dataclass(frozen=True, eq=False)
class ServedFeatures:
    """The features that a stage trains and is validated on in place of its frozen prefix.

    Args:
        suffix: Takes activations, returns logits.
        train: Features of the training images; None where these pass through the whole network.
        evaluate: Features of the validation images, likewise.
        drawn_in: The epoch whose draws augmented the training images; None for none.
    """

    suffix: nn.Module
    train: FeatureTable | None
    evaluate: FeatureTable | None
    drawn_in: int | None = None
