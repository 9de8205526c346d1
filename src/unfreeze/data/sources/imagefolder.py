"""Folders of class folders, as people have them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unfreeze.data.sources.bands import RGB
from unfreeze.data.sources.images import FileImages, printable
from unfreeze.data.sources.source import SPLIT_WORDS, ImageSource
from unfreeze.data.sources.walking import FolderWalk, image_suffixes
from unfreeze.errors import UnfreezeError


def folder_source(root: str | os.PathLike[str], *, bands: int = RGB) -> ImageSource:
    """Return the images of `root/{train,val,test}/<class>/*`, or of `root/<class>/*`, all of it train.

    Classes are the folders of train, sorted by name; below a class any nesting and any case of extension will do.
    Files that can't be read are among the images: that is for the decoder to say.

    Args:
        root: The folder.
        bands: What each image has; of others than three, NumPy arrays are images too.

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
    walk = FolderWalk(str(base), image_suffixes(bands), asked="data.root")
    folders = _split_folders(walk)
    found = _class_folders(walk, folders)
    label_of = {name: label for label, name in enumerate(found["train"])}
    paths: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for split, members in found.items():
        _check_classes(base, split, folders[split], members, list(label_of))
        for name, files in members.items():
            paths += files
            if files:
                labels.append(label_of[name])
                splits.append(split)
    _check_has_images(walk, paths)
    sizes = [len(files) for members in found.values() for files in members.values() if files]
    return ImageSource(
        name=printable(base.name),
        classes=tuple(printable(name) for name in label_of),
        images=FileImages(str(base), paths, bands),
        labels=np.repeat(np.asarray(labels, dtype=np.int64), sizes),
        splits=np.repeat(splits, sizes),
        ignored=tuple(sorted(printable(name) for name in walk.ignored)),
        notes=_notes_on_links(walk),
    )


def _split_folders(walk: FolderWalk) -> dict[str, str]:
    """Return the folder of each split; the root itself is train where it has no train/ with class folders."""
    # Of two names that differ in case alone, the lower one.
    there = {name.lower(): name for name in walk.folders("")}
    found = {split: there[name] for split, names in SPLIT_WORDS.items() for name in reversed(names) if name in there}
    if "train" in found and walk.folders(found["train"]):
        walk.strays("", beside=set(found.values()))
        return found
    if "train" not in found and found and all(walk.folders(folder) for folder in found.values()):
        names = " and ".join(f"{folder}/" for folder in found.values())
        raise UnfreezeError(
            f"data.root: {printable(walk.root)!r} has {names} but no train/; want class folders, or a train/ too"
        )
    if len(found) > 1 and len(found) == len(there):
        names = " and ".join(f"{folder}/" for folder in found.values())
        raise UnfreezeError(
            f"data.root: {printable(walk.root)!r} has {names} without class folders; want a folder per class in each, "
            "or a table that says which image is what: data=manifest data.csv=..."
        )
    return {"train": ""}


def _class_folders(walk: FolderWalk, folders: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Return the images of each split's class folders, by the name of the class."""
    names = {split: walk.folders(folder) for split, folder in folders.items()}
    for split, folder in folders.items():
        walk.strays(folder, beside=set(names[split]))
    kept = set(walk.own([name for members in names.values() for name in members]))
    return {
        split: {name.rpartition("/")[2]: list(walk.images(name)) for name in members if name in kept}
        for split, members in names.items()
    }


def _notes_on_links(walk: FolderWalk) -> tuple[str, ...]:
    names = sorted(printable(name) for name in walk.strange_links)
    if not names:
        return ()
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (f"links left out, as they lead back, or to images of other classes or splits: {shown}",)


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
        alone = sorted(name for name in walk.ignored if name[name.rfind(".") :].lower() in walk.suffixes)
        if alone:
            raise UnfreezeError(
                f"data.root: {len(alone):,} image{'s' * (len(alone) > 1)} lie right in {walk.root!r}, such as "
                f"{printable(alone[0])}, but there is no folder per class. Put each class in a folder of its own, or "
                "name the classes in a table: data=manifest data.csv=..."
            )
        raise UnfreezeError(
            f"data.root: no images in {walk.root!r}. Want a folder of class folders, or one with train/ "
            f"(and val/, test/) in it; images end in {' '.join(sorted(walk.suffixes))}"
        )
