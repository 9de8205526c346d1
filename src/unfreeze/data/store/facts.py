"""Facts about each image found by decoding, stored for later runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.store.blocks import DecodedBlock


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Sizes, file kinds and content hashes of a source's images.

    Args:
        sizes: Width and height as shown, in pixels, int32, shape (N, 2); zeros for unreadable images.
        digests: Hash of each image's content, dtype V16, shape (N,); zeros for unreadable images.
        kinds: Distinct formats and modes of the files, such as "JPEG RGB".
        kind_of: Index into `kinds` of each image, uint8, shape (N,).
        unreadable: Reasons why images can't be read, by index.
    """

    sizes: NDArray[np.int32]
    digests: NDArray[np.void]
    kinds: list[str]
    kind_of: NDArray[np.uint8]
    unreadable: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, count: int) -> "ImageFacts":
        """Return facts to be filled in by `update`."""
        return cls(
            sizes=np.zeros((count, 2), dtype=np.int32),
            digests=np.zeros(count, dtype="V16"),
            kinds=[],
            kind_of=np.zeros(count, dtype=np.uint8),
        )

    def update(self, block: DecodedBlock) -> None:
        """Set the facts of a block of decoded images."""
        self.sizes[block.indices] = block.sizes
        self.digests[block.indices] = block.digests
        self.kinds.extend(sorted(set(block.kinds) - {*self.kinds, ""}))
        self.kind_of[block.indices] = [self.kinds.index(kind) if kind else 0 for kind in block.kinds]
        self.unreadable.update(block.unreadable)

    @property
    def readable(self) -> NDArray[np.int64]:
        """Indices of the images that can be read."""
        return np.flatnonzero(self.sizes[:, 0])

    def uniform_size(self) -> tuple[int, int] | None:
        """Return the common width and height of all readable images; None if they differ."""
        sizes = self.sizes[self.readable]
        if not len(sizes) or (sizes != sizes[0]).any():
            return None
        return int(sizes[0, 0]), int(sizes[0, 1])

    def save(self, path: Path) -> None:
        """Write the facts to an .npz file."""
        texts: Mapping[str, object] = {"kinds": self.kinds, "unreadable": list(self.unreadable.items())}
        np.savez(
            path,
            sizes=self.sizes,
            digests=self.digests.view(np.uint8),
            kind_of=self.kind_of,
            texts=np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8),
        )

    @classmethod
    def load(cls, path: Path) -> "ImageFacts":
        """Return the facts of a file written by `save`."""
        with np.load(path, allow_pickle=False) as saved:
            texts = json.loads(saved["texts"].tobytes())
            return cls(
                sizes=saved["sizes"],
                digests=saved["digests"].view("V16"),
                kinds=texts["kinds"],
                kind_of=saved["kind_of"],
                unreadable=dict(texts["unreadable"]),
            )
