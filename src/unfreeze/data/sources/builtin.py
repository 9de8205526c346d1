"""Data that needs no folder of one's own: CIFAR-10, and the digits of scikit-learn."""

import os

import numpy as np

from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.source import ImageSource
from unfreeze.errors import UnfreezeError

_COUNTS = {"cifar10": (5000,) * 10, "digits": (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)}
"""Images of each class, those of a test split left aside."""


def counts_of_builtin(name: str) -> tuple[int, ...] | None:
    """Return how many images each class has before splits are cut; None for data that has a folder."""
    return _COUNTS.get(name)


def cifar10_source(root: str | os.PathLike[str], *, download: bool) -> ImageSource:
    """Return CIFAR-10 (Krizhevsky 2009) with its official test split.

    Args:
        root: Folder that holds `cifar-10-batches-py`, or will.
        download: Fetch what is absent.

    Raises:
        UnfreezeError: If the data is not there and could not be had.
    """
    from urllib.error import URLError

    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnfreezeError(
            f"data.root: CIFAR-10 is not in {str(root)!r} and could not be had from {CIFAR10.url} ({reason}). "
            f"Put {CIFAR10.filename} there, or type data=digits, or data=imagefolder data.root=<folder>"
        ) from None
    pixels = np.concatenate([part.data for part in parts])
    return ImageSource(
        name="cifar10",
        classes=tuple(parts[0].classes),
        images=ArrayImages(pixels),
        labels=np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts]),
        splits=np.repeat(["train", "test"], [len(part.data) for part in parts]),
    )


def digits_source() -> ImageSource:
    """Return scikit-learn's handwritten digits: 1,797 grey images of 8x8 (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ImageSource(
        name="digits",
        classes=tuple(str(name) for name in bunch.target_names),
        images=ArrayImages(np.repeat(grey[..., None], 3, axis=3)),
        labels=bunch.target.astype(np.int64),
        splits=np.full(len(grey), "train"),
    )
