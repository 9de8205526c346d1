"""Images in folders of class folders."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.bands import RGB
from unfreeze.data.sources.images import FileImages, printable
from unfreeze.data.sources.registry import SourceOptions
from unfreeze.data.sources.source import SPLIT_WORDS, ImageSource
from unfreeze.data.sources.walking import FolderWalk, image_suffixes
from unfreeze.errors import UnfreezeError


def load_folder(options: SourceOptions) -> ImageSource:
    """Return the images of the folder `options.root`."""
    assert options.root is not None
    return folder_source(options.root, bands=options.bands)


def folder_source(root: str | os.PathLike[str], *, bands: int = RGB) -> ImageSource:
    """Return the images of `root/{train,val,test}/<class>/*`, or of `root/<class>/*` as train.

    Classes are the folders of train, sorted by name. They may have subfolders, and file extensions may be in upper or
    lower case. Files that can't be read are included; they are reported when they are decoded.

    Args:
        root: Folder of the images.
        bands: Number of bands of each image; unless it is three, NumPy arrays are images too.

    Raises:
        UnfreezeError: If the folder is missing, has no images, or has a class that train lacks.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UnfreezeError(
            f"data.root: no folder {str(root)!r}. Want a folder of class folders, or one with train/ "
            "(and val/, test/) in it"
        )
    base = base.resolve()
    walk = FolderWalk(str(base), image_suffixes(bands), argument="data.root")
    folders = _split_folders(walk)
    found = _class_folders(walk, folders)
    for split, members in found.items():
        _check_classes(base, split, folders[split], members, list(found["train"]))
    paths = [path for members in found.values() for files in members.values() for path in files]
    _check_has_images(walk, paths)
    labels, splits = _labels_of(found)
    return ImageSource(
        name=printable(base.name),
        classes=tuple(printable(name) for name in found["train"]),
        images=FileImages(str(base), paths, bands),
        labels=labels,
        splits=splits,
        ignored=tuple(sorted(printable(name) for name in walk.ignored)),
        notes=_notes_on_links(walk),
    )


def _labels_of(found: Mapping[str, Mapping[str, Sequence[str]]]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return the label and the split of each image, in the order of the files of each split's class folders."""
    label_of = {name: label for label, name in enumerate(found["train"])}
    folders = [(split, name, files) for split, members in found.items() for name, files in members.items() if files]
    sizes = [len(files) for *_, files in folders]
    labels = np.repeat(np.array([label_of[name] for _, name, _ in folders], dtype=np.int64), sizes)
    return labels, np.repeat([split for split, *_ in folders], sizes)


def _split_folders(walk: FolderWalk) -> dict[str, str]:
    """Return the folder of each split; the root itself is train if it has no train/ with class folders."""
    # Of two names that differ only in case, the lower one.
    inside = {name.lower(): name for name in walk.folders("")}
    found = {split: inside[name] for split, names in SPLIT_WORDS.items() for name in reversed(names) if name in inside}
    if "train" in found and walk.folders(found["train"]):
        walk.ignore_others("", used=set(found.values()))
        return found
    if "train" not in found and found and all(walk.folders(folder) for folder in found.values()):
        names = " and ".join(f"{folder}/" for folder in found.values())
        raise UnfreezeError(
            f"data.root: {printable(walk.root)!r} has {names} but no train/; want class folders, or a train/ too"
        )
    if len(found) > 1 and len(found) == len(inside):
        names = " and ".join(f"{folder}/" for folder in found.values())
        raise UnfreezeError(
            f"data.root: {printable(walk.root)!r} has {names} without class folders; want a folder per class in each, "
            "or a table of images and labels: data=manifest data.csv=..."
        )
    return {"train": ""}


def _class_folders(walk: FolderWalk, folders: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Return the images of each split's class folders, by the name of the class."""
    names = {split: walk.folders(folder) for split, folder in folders.items()}
    for split, folder in folders.items():
        walk.ignore_others(folder, used=set(names[split]))
    used = set(walk.without_bad_links([name for members in names.values() for name in members]))
    return {
        split: {name.rpartition("/")[2]: list(walk.images(name)) for name in members if name in used}
        for split, members in names.items()
    }


def _notes_on_links(walk: FolderWalk) -> tuple[str, ...]:
    names = sorted(printable(name) for name in walk.skipped_links)
    if not names:
        return ()
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (f"links skipped, as they lead back, or to images of other classes or splits: {shown}",)


def _check_classes(base: Path, split: str, folder: str, members: dict[str, list[str]], classes: Sequence[str]) -> None:
    known = set(classes)
    for name, files in members.items():
        if name not in known and files:
            raise UnfreezeError(
                f"data.root: {split}/ has a class {printable(name)!r} that train/ lacks; classes of train: "
                f"{', '.join(map(printable, classes[:10]))}{' ...' if len(classes) > 10 else ''}"
            )
        if not files and split == "train":
            raise UnfreezeError(
                f"data.root: class {printable(name)!r} has no images in {printable(str(base / folder / name))}; "
                "add some or remove it"
            )


def _check_has_images(walk: FolderWalk, paths: Sequence[str]) -> None:
    if not paths:
        loose = sorted(name for name in walk.ignored if name[name.rfind(".") :].lower() in walk.suffixes)
        if loose:
            raise UnfreezeError(
                f"data.root: {len(loose):,} image{'s' * (len(loose) > 1)} directly in {walk.root!r}, such as "
                f"{printable(loose[0])}, but there is no folder per class. Put each class in a folder of its own, or "
                "name the classes in a table: data=manifest data.csv=..."
            )
        raise UnfreezeError(
            f"data.root: no images in {walk.root!r}. Want a folder of class folders, or one with train/ "
            f"(and val/, test/) in it; images end in {' '.join(sorted(walk.suffixes))}"
        )
