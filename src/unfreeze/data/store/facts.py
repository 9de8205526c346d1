"""What decoding has found out about each image, kept so that nobody has to decode for it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.store.blocks import DecodedBlock


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Sizes, kinds and contents of a source's images.

    Args:
        sizes: Width and height as shown, in pixels, int32, shape (N, 2); zeros where the image can't be read.
        digests: A hash of each image's content, dtype V16, shape (N,); zeros where the image can't be read.
        kinds: Format and mode of the file, such as "JPEG RGB", and how the images point to them.
        kind_of: Index into `kinds`, uint8, shape (N,).
        unreadable: Why, by the index of an image that can't be read.
    """

    sizes: NDArray[np.int32]
    digests: NDArray[np.void]
    kinds: list[str]
    kind_of: NDArray[np.uint8]
    unreadable: dict[int, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, count: int) -> "ImageFacts":
        """Return facts to be filled in by `note`."""
        return cls(
            sizes=np.zeros((count, 2), dtype=np.int32),
            digests=np.zeros(count, dtype="V16"),
            kinds=[],
            kind_of=np.zeros(count, dtype=np.uint8),
        )

    def note(self, block: DecodedBlock) -> None:
        """Keep what is known of some decoded images."""
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
        """Return the width and height that all readable images have, or None."""
        sizes = self.sizes[self.readable]
        if not len(sizes) or (sizes != sizes[0]).any():
            return None
        return int(sizes[0, 0]), int(sizes[0, 1])

    def save(self, path: Path) -> None:
        """Write everything to an .npz file."""
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
        """Return what `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            texts = json.loads(saved["texts"].tobytes())
            return cls(
                sizes=saved["sizes"],
                digests=saved["digests"].view("V16"),
                kinds=texts["kinds"],
                kind_of=saved["kind_of"],
                unreadable=dict(texts["unreadable"]),
            )
