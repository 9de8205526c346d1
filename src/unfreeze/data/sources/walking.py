"""Search for images in folders, in a fixed order and without the files of operating systems."""

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
# Folders that operating systems create, some of them with thumbnails.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


def image_suffixes(bands: int) -> frozenset[str]:
    """Return the file extensions of images with a number of bands, in lower case."""
    return IMAGE_SUFFIXES if bands == RGB else IMAGE_SUFFIXES | {ARRAY_SUFFIX}


class FolderWalk:
    """Search of a folder that records what it skips; all names are relative to the root.

    Args:
        root: Absolute path of the folder.
        suffixes: File extensions of images, in lower case.
        argument: Name of the argument that the root was given as, for error messages.

    Attributes:
        ignored: Names of the files and folders that are not used.
        skipped_links: Names of the links that were not followed.
    """

    def __init__(self, root: str, suffixes: frozenset[str], *, argument: str) -> None:
        self.root = root
        self.suffixes = suffixes
        self._argument = argument
        self.ignored: set[str] = set()
        self.skipped_links: set[str] = set()
        self._links: set[str] = set()
        self._real_paths: dict[str, str] = {}

    def without_bad_links(self, folders: Collection[str]) -> list[str]:
        """Return the class folders without links to other class folders or to parents of them.

        `images` skips such links below the class folders too; `skipped_links` has all of them.
        """
        self._real_paths = {name: self._real(name) for name in folders if name not in self._links}
        used = [name for name in folders if name in self._real_paths or not self._is_bad_link(name, within=name)]
        self.skipped_links |= {f"{name}/" for name in folders if name not in used}
        return used

    def folders(self, folder: str) -> list[str]:
        """Return the visible folders directly in a folder, sorted."""
        return sorted(self._entries(folder)[1])

    def ignore_others(self, folder: str, *, used: Collection[str]) -> None:
        """Record the files and folders directly in a folder that are not used as ignored."""
        files, folders = self._entries(folder)
        self.ignored |= {*files, *(f"{name}/" for name in folders if name not in used)}

    def images(self, folder: str) -> Iterator[str]:
        """Yield the images below a folder, sorted; a folder that several links lead to is entered once.

        Each folder is listed when it is entered, so that only one listing is in memory.
        """
        seen: set[tuple[int, int]] = set()
        pending = [(folder, True)]
        while pending:
            name, is_folder = pending.pop()
            if not is_folder:
                yield name
                continue
            if name != folder and name in self._links and self._is_bad_link(name, within=folder):
                self.skipped_links.add(f"{name}/")
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

    def _is_bad_link(self, link: str, *, within: str) -> bool:
        """Return whether a link leads to images of other class folders, or to a parent of its own class folder."""
        target = self._real(link)
        others = [real for name, real in self._real_paths.items() if name != within]
        own = self._real(within) if link != within else str(Path(self.root, link).parent)
        return _contains(target, own) or any(_contains(target, other) or _contains(other, target) for other in others)

    def _real(self, name: str) -> str:
        return os.path.realpath(os.path.join(self.root, name))

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the visible files and folders directly in a folder, by their relative names."""
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
                f"{self._argument}: can't list {printable(os.path.join(self.root, folder))!r} "
                f"({(error.strerror or str(error)).lower()}); make it readable, or move it elsewhere"
            ) from None
        return files, folders


def _contains(folder: str, other: str) -> bool:
    """Return whether a folder is the same as another one or contains it; both paths are absolute."""
    return Path(other).is_relative_to(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
