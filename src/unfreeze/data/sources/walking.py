"""Looking for images in folders: by their names, in one order, past what systems put beside them."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from PIL import features

from unfreeze.data.sources.bands import ARRAY_SUFFIX, RGB
from unfreeze.data.sources.images import printable
from unfreeze.errors import UnfreezeError

_HAS_AVIF = "avif" in features.modules and features.check("avif")
IMAGE_SUFFIXES = frozenset(
    {".apng", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
    | ({".avif"} if _HAS_AVIF else set())
)
# What systems put beside a person's files, thumbnails of them included.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


def image_suffixes(bands: int) -> frozenset[str]:
    """Return what the names of images of so many bands end in, in lower case."""
    return IMAGE_SUFFIXES if bands == RGB else IMAGE_SUFFIXES | {ARRAY_SUFFIX}


class FolderWalk:
    """Looks into folders, and keeps what it passes over; all names are relative to the root.

    Args:
        root: Absolute path.
        suffixes: Of images.
        asked: What a person named the root by, for messages.
    """

    def __init__(self, root: str, suffixes: frozenset[str], *, asked: str) -> None:
        self.root = root
        self.suffixes = suffixes
        self._asked = asked
        self.ignored: set[str] = set()
        self.strange_links: set[str] = set()
        self._links: set[str] = set()
        self._owned: dict[str, str] = {}

    def own(self, folders: Collection[str]) -> list[str]:
        """Return the folders whose images are to be told apart, without links to others of them or to what holds them.

        Links below them that lead there are passed over as well; `strange_links` has all such.
        """
        self._owned = {name: self._real(name) for name in folders if name not in self._links}
        kept = [name for name in folders if name in self._owned or not self._leads_astray(name, within=name)]
        self.strange_links |= {f"{name}/" for name in folders if name not in kept}
        return kept

    def folders(self, folder: str) -> list[str]:
        """Return the visible folders right in a folder, sorted."""
        return sorted(self._entries(folder)[1])

    def strays(self, folder: str, *, beside: Collection[str]) -> None:
        """Note all that stands in a folder beside what is used of it."""
        files, folders = self._entries(folder)
        self.ignored |= {*files, *(f"{name}/" for name in folders if name not in beside)}

    def images(self, folder: str) -> Iterator[str]:
        """Yield the images below a folder, sorted; a folder that links lead to again is entered once.

        Each folder is listed when it is come to, so that of many folders one is in memory.
        """
        seen: set[tuple[int, int]] = set()
        pending = [(folder, True)]
        while pending:
            name, is_folder = pending.pop()
            if not is_folder:
                yield name
                continue
            if name != folder and name in self._links and self._leads_astray(name, within=folder):
                self.strange_links.add(f"{name}/")
                continue
            identity = Path(self.root, name).stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            files, folders = self._entries(name)
            images = [file for file in files if file[file.rfind(".") :].lower() in self.suffixes]
            if len(images) < len(files):
                self.ignored |= set(files).difference(images)
            if folders:
                pending += sorted([*((file, False) for file in images), *((name, True) for name in folders)])[::-1]
            else:
                yield from sorted(images)

    def _leads_astray(self, link: str, *, within: str) -> bool:
        """Return whether a link leads to images of other folders, or to what holds the folder that it is in."""
        target = self._real(link)
        others = [real for name, real in self._owned.items() if name != within]
        own = self._real(within) if link != within else str(Path(self.root, link).parent)
        return _holds(target, own) or any(_holds(target, other) or _holds(other, target) for other in others)

    def _real(self, name: str) -> str:
        return os.path.realpath(os.path.join(self.root, name))

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the visible files and folders right in a folder, by their relative names."""
        prefix = f"{folder}/" if folder else ""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(os.path.join(self.root, folder)) as listing:
                for entry in listing:
                    name = entry.name
                    is_folder = _is_folder(entry)
                    if name[0] == "." or name in _SYSTEM_FOLDERS:
                        self.ignored.add(f"{prefix}{name}/" if is_folder else prefix + name)
                    else:
                        (folders if is_folder else files).append(prefix + name)
                        if is_folder and entry.is_symlink():
                            self._links.add(prefix + name)
        except OSError as error:
            raise UnfreezeError(
                f"{self._asked}: can't look into {printable(os.path.join(self.root, folder))!r} "
                f"({(error.strerror or str(error)).lower()}); make it readable, or move it elsewhere"
            ) from None
        return files, folders


def _holds(folder: str, other: str) -> bool:
    """Return whether a folder is another one, or contains it; both are absolute."""
    return Path(other).is_relative_to(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
