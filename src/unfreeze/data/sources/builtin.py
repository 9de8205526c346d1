"""Built-in data: CIFAR-10, and the digits of scikit-learn."""

import os

import numpy as np

from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.registry import SourceOptions
from unfreeze.data.sources.source import ImageSource
from unfreeze.errors import UnfreezeError


def load_cifar10(options: SourceOptions) -> ImageSource:
    """Return CIFAR-10 from `options.root`, or from the folder `data`."""
    return cifar10_source(options.root or "data", download=options.download)


def load_digits(_: SourceOptions) -> ImageSource:
    """Return scikit-learn's handwritten digits."""
    return digits_source()


def cifar10_source(root: str | os.PathLike[str], *, download: bool) -> ImageSource:
    """Return CIFAR-10 (Krizhevsky 2009) with its official test split.

    Args:
        root: Folder of `cifar-10-batches-py`.
        download: Whether to download missing data.

    Raises:
        UnfreezeError: If the data is missing and can't be downloaded.
    """
    from urllib.error import URLError

    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnfreezeError(
            f"data.root: CIFAR-10 is not in {str(root)!r} and could not be downloaded from {CIFAR10.url} ({reason}). "
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
