"""Images by index, in files or in memory."""

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
"""Characters that break a line or change the direction of the text after them."""


class Readable(Protocol):
    """Images that can be read by index."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> DecodedImage:
        """Return the decoded image with the facts about its file.

        Raises:
            UnreadableImageError: If it can't be read, with the reason.
        """


class Images(Readable, Protocol):
    """Readable images with names and a state."""

    @property
    def bands(self) -> int:
        """Number of bands of each image; three are red, green and blue."""

    def name(self, index: int) -> str:
        """Return the name of an image for messages."""

    def state(self) -> str:
        """Return a hash as hex that changes when any image changes, computed without decoding."""


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files.

    Args:
        root: Folder that relative paths start from.
        paths: Path of each image, relative to the root or absolute.
        bands: Number of bands of each image; with three, every image is converted to RGB.

    Raises:
        UnfreezeError: If a package that reads the bands is not installed.
    """

    root: str
    paths: Sequence[str]
    bands: int = RGB

    def __post_init__(self) -> None:
        check_readable(self.paths, self.bands)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the path as it was given, printable in one line."""
        return printable(self.paths[index])

    def check_any_exists(self) -> None:
        """Refuse paths none of which exists, as the folder is then wrong.

        Raises:
            UnfreezeError: If none exists, with the folder and what to type.
        """
        if len(self) and not any(os.path.lexists(os.path.join(self.root, path)) for path in self.paths):
            raise UnfreezeError(
                f"data: none of the {len(self):,} images exists, such as {self.name(0)!r} in "
                f"{printable(self.root)!r}; type data.root=<the folder that the paths start from>"
            )

    def read(self, index: int) -> DecodedImage:
        """Return the decoded file."""
        path = os.path.join(self.root, self.paths[index])
        return decode_file(path) if self.bands == RGB else decode_bands(path, self.bands)

    def state(self) -> str:
        """Return a hash of all paths, sizes and modification times."""
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
    """Images in memory.

    Args:
        pixels: RGB pixels, uint8, shape (N, H, W, 3).
    """

    pixels: NDArray[np.uint8]

    @property
    def bands(self) -> int:
        """Number of bands: red, green and blue."""
        return RGB

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Return the index as a name."""
        return f"#{index}"

    def read(self, index: int) -> DecodedImage:
        """Return the image with a hash of its pixels."""
        pixels = self.pixels[index]
        return DecodedImage(Image.fromarray(pixels), content_digest(pixels.tobytes()), "array", "RGB")

    def state(self) -> str:
        """Return a hash of all pixels."""
        return blake2b(np.ascontiguousarray(self.pixels).data, digest_size=16).hexdigest()


def printable(name: str) -> str:
    """Return a file name in one line, with bytes that are not UTF-8 and control characters escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
