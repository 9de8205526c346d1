"""Images on demand: in files, or in memory."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.sources.bands import RGB, check_readable, decode_bands
from unfreeze.data.sources.decoding import DecodedImage, content_digest, decode_file
from unfreeze.errors import UnfreezeError

Indices = NDArray[np.int64]

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
"""Characters that break a line, or turn the direction of the text after them."""


class Readable(Protocol):
    """Images that can be read, by index."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> DecodedImage:
        """Return the image, and what its file was.

        Raises:
            UnreadableImageError: With the reason.
        """


class Images(Readable, Protocol):
    """Images on demand, by index."""

    @property
    def bands(self) -> int:
        """Of each image; three are red, green and blue."""

    def name(self, index: int) -> str:
        """Return what a person calls the image."""

    def state(self) -> str:
        """Return a hash that changes where any image has changed, found without reading them, as hex."""


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files.

    Args:
        root: Folder that relative paths start from.
        paths: A path for each image, relative to the root or absolute.
        bands: What each image has; three are red, green and blue, which any image is made to have.

    Raises:
        UnfreezeError: If what reads such bands is not installed.
    """

    root: str
    paths: Sequence[str]
    bands: int = RGB

    def __post_init__(self) -> None:
        check_readable(self.paths, self.bands)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the path as it was given, printable in one line whatever its bytes."""
        return printable(self.paths[index])

    def check_some_are_there(self) -> None:
        """Refuse paths of which none leads to a file: then it is the folder that is wrong.

        Raises:
            UnfreezeError: Naming the folder, and what to type.
        """
        if len(self) and not any(os.path.lexists(os.path.join(self.root, path)) for path in self.paths):
            raise UnfreezeError(
                f"data: none of the {len(self):,} images is there, such as {self.name(0)!r} in "
                f"{printable(self.root)!r}; type data.root=<the folder that the paths start from>"
            )

    def read(self, index: int) -> DecodedImage:
        """Return the decoded file."""
        path = os.path.join(self.root, self.paths[index])
        return decode_file(path) if self.bands == RGB else decode_bands(path, self.bands)

    def state(self) -> str:
        """Return a hash of all paths, sizes and times of modification."""
        total = blake2b(os.fsencode(self.root), digest_size=16)
        if self.bands != RGB:
            total.update(f"{self.bands} bands".encode())
        found = np.full((len(self.paths), 3), -1, dtype=np.int64)
        for index, path in enumerate(self.paths):
            try:
                stat = os.stat(os.path.join(self.root, path))  # noqa: PTH116, Path takes twice as long
            except OSError:
                continue
            found[index] = stat.st_size, stat.st_mtime_ns, stat.st_mode
        total.update(b"\0".join(map(os.fsencode, self.paths)))
        total.update(found.tobytes())
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, uint8, shape (N, H, W, 3)."""

    pixels: NDArray[np.uint8]

    @property
    def bands(self) -> int:
        """Red, green and blue."""
        return RGB

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Return the index as a name."""
        return f"#{index}"

    def read(self, index: int) -> DecodedImage:
        """Return the image, its digest that of its pixels."""
        pixels = self.pixels[index]
        return DecodedImage(Image.fromarray(pixels), content_digest(pixels.tobytes()), "array", "RGB")

    def state(self) -> str:
        """Return a hash of all pixels."""
        return blake2b(np.ascontiguousarray(self.pixels).data, digest_size=16).hexdigest()


def printable(name: str) -> str:
    """Return a file's name in one line, with bytes that are not UTF-8 and control characters spelled out."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(_spelled_out, text)


def _spelled_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
