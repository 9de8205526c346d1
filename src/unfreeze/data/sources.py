"""Where labelled images come from: folders, CIFAR-10, the embedded digits."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unfreeze.data.decoding import decode_file, file_digest, file_size_px
from unfreeze.errors import UnfreezeError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jfif"}
)
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Images(Protocol):
    """Images on demand, by index."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what a person calls the image."""

    def size_px(self, index: int) -> tuple[int, int]:
        """Return width and height, without decoding where that can be had."""

    def read(self, index: int) -> Image.Image:
        """Return the image as RGB."""

    def digest(self, index: int) -> bytes:
        """Return a hash of the image's content, 16 bytes."""


@dataclass(frozen=True)
class FileImages:
    """Images in files."""

    root: Path
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the path below the root, with forward slashes."""
        return self.paths[index].relative_to(self.root).as_posix()

    def size_px(self, index: int) -> tuple[int, int]:
        """Return width and height as they are shown, from the file's header."""
        return file_size_px(self.paths[index])

    def read(self, index: int) -> Image.Image:
        """Return the decoded file as RGB."""
        return decode_file(self.paths[index])

    def digest(self, index: int) -> bytes:
        """Return a hash of the file's bytes."""
        return file_digest(self.paths[index])


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory, uint8, shape (N, H, W, 3)."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Return the index as a name."""
        return f"#{index}"

    def size_px(self, index: int) -> tuple[int, int]:
        """Return width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def read(self, index: int) -> Image.Image:
        """Return the image as RGB."""
        return Image.fromarray(self.pixels[index])

    def digest(self, index: int) -> bytes:
        """Return a hash of the pixels."""
        from hashlib import blake2b

        return blake2b(self.pixels[index].tobytes(), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Labelled images, with the split that each of them came in.

    Args:
        name: What a person calls the data.
        classes: Names of the classes, in the order of their labels.
        images: The images.
        labels: int64, shape (N,), in [0, len(classes)).
        splits: "train", "val" or "test" for each image, shape (N,).
    """

    name: str
    classes: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]


def folder_source(root: str | os.PathLike[str]) -> ImageSource:
    """Return the images of `root/{train,val,test}/<class>/*`, or of `root/<class>/*`, all of it train.

    Classes are the folders of train, sorted by name; below a class any nesting and any case of extension will do.

    Raises:
        UnfreezeError: If the folder is missing, has no images, one class only, or a class that train lacks.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UnfreezeError(
            f"data.root: no folder {str(root)!r}. Want a folder of class folders, or one with train/ "
            "(and val/, test/) in it"
        )
    base = base.resolve()
    folders = _split_folders(base)
    classes = sorted(entry.name for entry in _subfolders(folders["train"]))
    paths: list[Path] = []
    labels: list[int] = []
    splits: list[str] = []
    for split, folder in folders.items():
        for class_folder in _subfolders(folder):
            found = sorted(_image_files(class_folder))
            if class_folder.name not in classes:
                if not found:
                    continue
                raise UnfreezeError(
                    f"data.root: {split}/ has a class {class_folder.name!r} that train/ lacks; "
                    f"classes of train: {', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}"
                )
            if not found and split == "train":
                raise UnfreezeError(
                    f"data.root: class {class_folder.name!r} has no images in {class_folder}; add some or remove it"
                )
            paths += found
            labels += [classes.index(class_folder.name)] * len(found)
            splits += [split] * len(found)
    _check_has_classes(base, classes, paths)
    return ImageSource(
        name=base.name,
        classes=tuple(classes),
        images=FileImages(base, tuple(paths)),
        labels=np.asarray(labels, dtype=np.int64),
        splits=np.asarray(splits),
    )


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


def _split_folders(base: Path) -> dict[str, Path]:
    """Return the folder of each split; the base itself is train where it has no train/ with class folders."""
    found = {
        split: base / name
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if (base / name).is_dir()
    }
    if "train" in found and _subfolders(found["train"]):
        return found
    if "train" not in found and found and all(_subfolders(folder) for folder in found.values()):
        names = " and ".join(f"{folder.name}/" for folder in found.values())
        raise UnfreezeError(f"data.root: {str(base)!r} has {names} but no train/; want class folders, or a train/ too")
    return {"train": base}


def _check_has_classes(base: Path, classes: Sequence[str], paths: Sequence[Path]) -> None:
    if not paths:
        raise UnfreezeError(
            f"data.root: no images in {str(base)!r}. Want a folder of class folders, or one with train/ "
            f"(and val/, test/) in it; images end in {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if len(classes) < 2:
        raise UnfreezeError(
            f"data.root: {str(base)!r} has one class folder, {classes[0]!r}; want two or more to tell apart"
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _image_files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for current, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(current, name)
