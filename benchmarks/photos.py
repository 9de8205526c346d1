"""Folders of images to measure on: made up, or a part of what there is."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def write_noise(root: Path, *, train: int, test: int = 0) -> Path:
    """Write small JPEGs as train/ and test/ of class folders, where only time counts."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            folder = root / split / f"class{number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number:05}.jpg")
    return root


def link_part(source: Path, root: Path, *, train: int, test: int | None = None) -> Path:
    """Link the first images of each class, as many of each, so that all contestants have the same.

    Args:
        source: train/ and test/ of class folders.
        root: Where the links go.
        train: How many to train on, in all.
        test: How many to test on, in all; None for all there are.
    """
    for split, count in (("train", train), ("test", test)):
        folders = sorted(folder for folder in (source / split).iterdir() if folder.is_dir())
        for folder in folders:
            (root / split / folder.name).mkdir(parents=True)
            files = sorted(folder.iterdir())
            for file in files if count is None else files[: count // len(folders)]:
                (root / split / folder.name / file.name).symlink_to(file.absolute())
    return root
