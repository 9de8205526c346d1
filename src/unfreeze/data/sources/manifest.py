"""Images of a table: a row per image with its path, its label, and optionally its split and group."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unfreeze.data.sources.bands import RGB
from unfreeze.data.sources.columns import ColumnNames, Columns, find_columns
from unfreeze.data.sources.images import FileImages
from unfreeze.data.sources.registry import SourceOptions
from unfreeze.data.sources.source import SPLIT_NAMES, SPLIT_WORDS, ImageSource, Task
from unfreeze.data.sources.table import Table, read_table
from unfreeze.errors import UnfreezeError

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def load_manifest(options: SourceOptions) -> ImageSource:
    """Return the images of the table `options.csv`."""
    assert options.csv is not None
    columns = Columns(**options.columns) if options.columns is not None else None
    return manifest_source(options.csv, root=options.root, columns=columns, bands=options.bands)


def manifest_source(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    columns: Columns | None = None,
    bands: int = RGB,
) -> ImageSource:
    """Return the images of a CSV or Parquet file; missing image files are reported when they are decoded.

    Args:
        path: Path of the table.
        root: Folder that relative paths start from; None for the folder of the table.
        columns: Requested columns; None for the well-known names.
        bands: Number of bands of each image.

    Raises:
        UnfreezeError: If the table can't be read, or contradicts itself.
    """
    columns = columns or Columns()
    base = _find_root(path, root)
    table = read_table(path)
    names = find_columns(table, columns)
    paths = _clean_paths(table.frame[names.image], base)
    first = _find_first_rows(table, names, _normal_paths(paths, base))
    splits = _read_splits(table, names.split)
    tasks = [task.select(first) for task in _read_tasks(table, names.labels, columns.separator, splits)]
    groups = _read_groups(table, names.group, splits if names.split else None)
    return ImageSource(
        name=Path(path).stem,
        classes=tasks[0].classes,
        images=FileImages(base, paths.filter(pl.Series(first)).to_list(), bands),
        labels=tasks[0].labels,
        splits=splits[first],
        groups=groups[first] if groups is not None else None,
        task=tasks[0].name,
        more_tasks=tuple(tasks[1:]),
        notes=_notes_on_repeats(first),
    )


def _find_root(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> str:
    base = Path(path).expanduser().parent if root is None else Path(root).expanduser()
    if root is not None and not base.is_dir():
        raise UnfreezeError(f"data.root: no folder {str(root)!r}; want the one that the table's paths start from")
    return os.path.abspath(base)


def _clean_paths(given: pl.Series, base: str) -> pl.Series:
    """Return the paths with home folders expanded and separators of Windows replaced."""
    paths = given.rename("image")
    backslashed = paths.filter(paths.str.contains("\\", literal=True))
    if os.sep == "/" and len(backslashed) and not os.path.lexists(os.path.join(base, backslashed[0])):
        paths = paths.str.replace_all("\\", "/", literal=True)
    if paths.str.starts_with("~").any():
        paths = pl.Series("image", [os.path.expanduser(path) for path in paths])
    return paths


def _normal_paths(paths: pl.Series, base: str) -> pl.Series:
    """Return the paths in one spelling, relative to the base if they are below it."""
    if not paths.str.contains("//|[.]/|^/").any():
        return paths
    whole = (os.path.normpath(os.path.join(base, path)) for path in paths)
    return pl.Series("image", [path.removeprefix(base + os.sep) for path in whole])


def _find_first_rows(table: Table, names: ColumnNames, paths: pl.Series) -> NDArray[np.bool_]:
    """Return a mask of the rows that name an image first; otherwise one image could be in two splits."""
    for key, found in names.by_key().items():
        if key != "image":
            _check_is_consistent(table, paths, key, found)
    first: NDArray[np.bool_] = paths.is_first_distinct().to_numpy()
    return first


def _notes_on_repeats(first: NDArray[np.bool_]) -> tuple[str, ...]:
    repeated = len(first) - int(first.sum())
    return (f"{repeated:,} rows name an image again; each image counts once",) if repeated else ()


def _check_is_consistent(table: Table, paths: pl.Series, key: str, names: Sequence[str]) -> None:
    """Refuse a table in which an image has two labels, splits or groups."""
    cells = pl.DataFrame([paths, *(_stripped(table.frame[name]).rename(f"{key} {name}") for name in names)]).unique()
    conflicts = cells.filter(cells["image"].is_duplicated())
    if len(conflicts):
        example = conflicts["image"].min()
        rows = cells.filter(cells["image"] == example).drop("image").rows()
        shown = " and ".join(sorted({" ".join(map(repr, row)) for row in rows}))
        raise UnfreezeError(
            f"data.columns.{key}: {conflicts['image'].n_unique():,} images have several {key}s, such as {example!r}: "
            f"{shown} in {table.row_numbers(paths == example)}; want one {key} for each image"
        )


def _stripped(column: pl.Series) -> pl.Series:
    return column.str.strip_chars()


def _read_splits(table: Table, name: str | None) -> NDArray[np.str_]:
    if name is None:
        return np.full(len(table.frame), "train")
    given = _stripped(table.frame[name]).str.to_lowercase()
    unknown = ~given.is_in(list(_SPLIT_OF))
    if unknown.any():
        raise UnfreezeError(
            f"data.columns.split: {table.frame[name].filter(unknown)[0]!r} in {table.row_numbers(unknown)} of {name!r} "
            f"is no split; want {', '.join(_SPLIT_OF)}, or type data.columns.split=false to split the data anew"
        )
    splits = given.replace_strict(_SPLIT_OF, return_dtype=pl.Enum(SPLIT_NAMES)).to_physical().to_numpy()
    if not (splits == 0).any():
        raise UnfreezeError(
            f"data.columns.split: no row of {name!r} is train; fix it, or type data.columns.split=false to split the "
            "data anew"
        )
    named: NDArray[np.str_] = np.array(SPLIT_NAMES)[splits]
    return named


def _read_tasks(table: Table, names: Sequence[str], separator: str | None, splits: NDArray[np.str_]) -> list[Task]:
    if separator is not None:
        return _read_labels(table, names, separator, splits)
    return [_read_task(table, name, splits) for name in names]


def _read_task(table: Table, name: str, splits: NDArray[np.str_]) -> Task:
    """Return the task of a column, its classes sorted by number if all are whole numbers, else by name."""
    names = _stripped(table.frame[name])
    classes: list[str] = names.unique().sort().to_list()
    if all(_WHOLE_NUMBER.fullmatch(label) for label in classes):
        classes.sort(key=int)
    labels = names.cast(pl.Enum(classes)).to_physical().to_numpy().astype(np.int64)
    unseen = np.setdiff1d(labels, labels[splits == "train"])
    if len(unseen):
        split = splits[labels == unseen[0]][0]
        raise UnfreezeError(
            f"data.columns.label: {split} has a class {classes[unseen[0]]!r} of {name!r} that train lacks; classes "
            f"that train lacks: {len(unseen)} of {len(classes)}. Move some of their rows to train, or remove them"
        )
    return Task(name, tuple(classes), labels)


def _read_labels(table: Table, names: Sequence[str], separator: str, splits: NDArray[np.str_]) -> list[Task]:
    """Return a task of "0" and "1" for each label in the cells of a column, sorted."""
    if len(names) > 1:
        raise UnfreezeError(
            f"data.columns.separator: given with {len(names)} columns, {', '.join(names)}; want one column whose "
            "cells hold several labels, or columns of 0 and 1 and no separator"
        )
    cells = table.frame[names[0]].fill_null("").str.split(separator).list.eval(pl.element().str.strip_chars())
    labels = sorted(set(cells.explode().drop_nulls().to_list()) - {""})
    if not labels:
        raise UnfreezeError(f"data.columns.label: no cell of {names[0]!r} holds a label")
    tasks = []
    for label in labels:
        presence = cells.list.contains(label).to_numpy().astype(np.int64)
        if not presence[splits == "train"].any():
            raise UnfreezeError(
                f"data.columns.label: no train image has the label {label!r} of {names[0]!r}; move some of its rows to "
                "train, or remove the label"
            )
        tasks.append(Task(label, ("0", "1"), presence))
    return tasks


def _read_groups(table: Table, name: str | None, splits: NDArray[np.str_] | None) -> NDArray[np.int64] | None:
    """Return the number of each image's group; an image without a group is a group of its own.

    Args:
        table: Table of the images.
        name: Name of the column; None for no groups.
        splits: Existing split of each image, in which groups must be whole; None for no splits.
    """
    if name is None:
        return None
    if splits is not None:
        _check_groups_are_whole(table, name, splits)
    numbers = _stripped(table.frame[name]).rank("dense").cast(pl.Int64).to_physical()
    ungrouped = numbers.is_null().to_numpy()
    groups = numbers.fill_null(0).to_numpy().copy()
    groups[ungrouped] = groups.max(initial=0) + 1 + np.arange(np.count_nonzero(ungrouped))
    return groups


def _check_groups_are_whole(table: Table, name: str, splits: NDArray[np.str_]) -> None:
    groups = pl.DataFrame([_stripped(table.frame[name]).rename("group"), pl.Series("split", splits)]).drop_nulls()
    counts = groups.group_by("group", "split").len()
    divided = counts.filter(counts["group"].is_duplicated())
    if not len(divided):
        return
    names = divided["group"].unique().sort()
    shown = "; ".join(
        f"{group!r} has "
        + ", ".join(
            f"{count} in {split}"
            for split, count in sorted(
                divided.filter(divided["group"] == group).select("split", "len").rows(),
                key=lambda row: SPLIT_NAMES.index(row[0]),
            )
        )
        for group in names.head(3)
    )
    raise UnfreezeError(
        f"data.columns.group: {len(names):,} groups of {name!r} are in several splits: {shown}"
        f"{' ...' if len(names) > 3 else ''}. Fix the table, or type data.columns.split=false to split the data anew"
    )
