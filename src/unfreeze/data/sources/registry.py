"""Table of the data sources: required settings of each, and how its images are loaded and counted.

A new source is a file with a function from `SourceOptions` to `ImageSource`, and a row here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.data.sources.source import ImageSource


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Settings that a source is loaded with; each source uses some of them.

    Args:
        bands: Number of bands of each image.
        root: Folder of the images, or the folder that relative paths start from.
        csv: Path of a table of images.
        columns: Arguments of `unfreeze.data.sources.columns.Columns`; None for the defaults.
        download: Whether missing data may be downloaded.
    """

    bands: int
    root: str | None = None
    csv: str | None = None
    columns: Mapping[str, Any] | None = None
    download: bool = False


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A row of the table.

    Args:
        loader: Dotted name of a function from `SourceOptions` to `ImageSource`, imported when it is called.
        required: Names of the `SourceOptions` that must be given.
        reads_table: Whether `csv` and `columns` apply.
        is_rgb: Whether the images are always RGB.
        train_counts: Number of images of each class that are not test images, for built-in data; None if the images
            must be loaded to be counted.
        has_test: Whether built-in data has a test split.
    """

    loader: str
    required: tuple[str, ...] = ()
    reads_table: bool = False
    is_rgb: bool = False
    train_counts: tuple[int, ...] | None = None
    has_test: bool = False

    def load(self, options: SourceOptions) -> "ImageSource":
        """Return the labelled images.

        Raises:
            UnfreezeError: If there are none, or a package that reads them is not installed.
        """
        source: ImageSource = resolve_name(self.loader)(options)
        return source


SOURCES: dict[str, DataSource] = {
    "cifar10": DataSource(
        loader="unfreeze.data.sources.builtin:load_cifar10",
        is_rgb=True,
        train_counts=(5000,) * 10,
        has_test=True,
    ),
    "imagefolder": DataSource(loader="unfreeze.data.sources.imagefolder:load_folder", required=("root",)),
    "manifest": DataSource(loader="unfreeze.data.sources.manifest:load_manifest", required=("csv",), reads_table=True),
    "digits": DataSource(
        loader="unfreeze.data.sources.builtin:load_digits",
        is_rgb=True,
        train_counts=(178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
    ),
}
"""The data sources by the name that `data=` takes."""
