"""A table of images: a row for each, with its path, its label, and what else is known of it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unfreeze.data.sources.bands import RGB
from unfreeze.data.sources.images import FileImages
from unfreeze.data.sources.source import SPLIT_NAMES, SPLIT_WORDS, ImageSource, Task
from unfreeze.data.sources.table import Table, read_table
from unfreeze.errors import UnfreezeError

KNOWN_NAMES = {
    "image": ("image", "path", "file", "filename", "filepath", "image_path", "file_name"),
    "label": ("label", "class", "target", "category", "label_name"),
    "split": ("split", "subset"),
    "group": ("group", "group_id"),
}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a manifest; None for one of the well-known names, False for none even if there is one.

    Args:
        image: Paths of the images.
        label: Names of their classes; several columns are several tasks.
        split: Train, val or test.
        group: What must not be torn apart by splits.
        separator: What stands between the labels of an image that has several, in one column; None for one label each.
    """

    image: str | None = None
    label: str | Sequence[str] | None = None
    split: str | Literal[False] | None = None
    group: str | Literal[False] | None = None
    separator: str | None = None


def manifest_source(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    columns: Columns | None = None,
    bands: int = RGB,
) -> ImageSource:
    """Return the images of a CSV or Parquet file; whether they are there is for the decoder to say.

    Args:
        path: The table.
        root: Folder that relative paths start from; None for the table's.
        columns: What to read from which column.
        bands: What each image has.

    Raises:
        UnfreezeError: If the table can't be read, or what it says contradicts itself.
    """
    columns = columns or Columns()
    base = _find_root(path, root)
    table = read_table(path)
    image = _find(table, "image", columns.image)
    labels = _find_labels(table, columns.label)
    split = _find_optional(table, "split", columns.split)
    group = _find_optional(table, "group", columns.group)
    filled = labels if columns.separator is None else []  # an image may have none of several labels
    for key, names in (("image", [image]), ("label", filled), ("split", [split] if split else [])):
        for name in names:
            _check_is_filled(table, key, name)
    paths = _clean_paths(table.frame[image], base)
    places = _normal_paths(paths, base)
    for key, names in (("label", labels), ("split", [split] if split else []), ("group", [group] if group else [])):
        _check_says_one_thing(table, places, key, names)
    # What stands in the table again would otherwise be cut into train here and into test there.
    first = places.is_first_distinct().to_numpy()
    splits = _read_splits(table, split)
    if columns.separator is None:
        tasks = [_read_task(table, name, splits) for name in labels]
    else:
        tasks = _read_labels(table, labels, columns.separator, splits)
    if split and group:
        _check_groups_are_whole(table, group, splits)
    repeated = len(first) - int(first.sum())
    return ImageSource(
        name=Path(path).stem,
        classes=tasks[0].classes,
        images=FileImages(base, paths.filter(pl.Series(first)).to_list(), bands),
        labels=tasks[0].labels[first],
        splits=splits[first],
        groups=_read_groups(table.frame[group])[first] if group else None,
        task=tasks[0].name,
        more_tasks=tuple(Task(task.name, task.classes, task.labels[first]) for task in tasks[1:]),
        notes=(f"{repeated:,} rows name an image again; each image counts once",) if repeated else (),
    )


def _find_root(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> str:
    base = Path(path).expanduser().parent if root is None else Path(root).expanduser()
    if root is not None and not base.is_dir():
        raise UnfreezeError(f"data.root: no folder {str(root)!r}; want the one that the table's paths start from")
    return os.path.abspath(base)


def _find(table: Table, key: str, asked: str | None) -> str:
    found = _find_optional(table, key, asked)
    if found is None:
        raise UnfreezeError(
            f"data.columns.{key}: none of the columns is called {', '.join(KNOWN_NAMES[key])}; "
            f"type data.columns.{key}=<column>. {_columns_of(table)}"
        )
    return found


def _find_labels(table: Table, asked: str | Sequence[str] | None) -> list[str]:
    if asked is None or isinstance(asked, str):
        return [_find(table, "label", asked)]
    return list(dict.fromkeys(_find(table, "label", name) for name in asked))


def _find_optional(table: Table, key: str, asked: str | Literal[False] | None) -> str | None:
    """Return the name of a column, the one asked for or a well-known one; None where there is none."""
    if asked is False:
        return None
    by_lower = {name.lower(): name for name in reversed(table.frame.columns)}
    if asked is None:
        found = next((by_lower[name] for name in KNOWN_NAMES[key] if name in by_lower), None)
    else:
        found = asked if asked in table.frame.columns else by_lower.get(asked.strip().lower())
        if found is None:
            raise UnfreezeError(f"data.columns.{key}: no column {asked!r}. {_columns_of(table)}")
    if found is not None and table.frame[found].dtype != pl.String:
        raise UnfreezeError(
            f"data.columns.{key}: column {found!r} holds {table.frame[found].dtype}; want text or numbers. "
            f"{_columns_of(table)}"
        )
    return found


def _columns_of(table: Table) -> str:
    names = table.frame.columns
    return f"Columns of the table: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"


def _check_is_filled(table: Table, key: str, name: str) -> None:
    empty = table.frame[name].is_null()
    if empty.any():
        raise UnfreezeError(
            f"data.columns.{key}: {empty.sum():,} of {len(empty):,} cells of {name!r} are empty: "
            f"{table.row_numbers(empty)}; fill them, or remove the rows"
        )


def _clean_paths(given: pl.Series, base: str) -> pl.Series:
    """Return paths as this system writes them: home folders, and the separators of Windows."""
    paths = given.rename("image")
    backslashed = paths.filter(paths.str.contains("\\", literal=True))
    if os.sep == "/" and len(backslashed) and not os.path.lexists(os.path.join(base, backslashed[0])):
        paths = paths.str.replace_all("\\", "/", literal=True)
    if paths.str.starts_with("~").any():
        paths = pl.Series("image", [os.path.expanduser(path) for path in paths])
    return paths


def _normal_paths(paths: pl.Series, base: str) -> pl.Series:
    """Return paths in one spelling, relative to the base where they lie below it."""
    if not paths.str.contains("//|[.]/|^/").any():
        return paths
    whole = (os.path.normpath(os.path.join(base, path)) for path in paths)
    return pl.Series("image", [path.removeprefix(base + os.sep) for path in whole])


def _check_says_one_thing(table: Table, places: pl.Series, key: str, names: Sequence[str]) -> None:
    """Refuse a table that gives an image two labels, splits or groups."""
    said = pl.DataFrame([places, *(_stripped(table.frame[name]).rename(f"{key} {name}") for name in names)]).unique()
    twice = said.filter(said["image"].is_duplicated())
    if len(twice):
        example = twice["image"].min()
        rows = places == example
        told = said.filter(said["image"] == example).drop("image").rows()
        cells = " and ".join(sorted({" ".join(map(repr, cells)) for cells in told}))
        raise UnfreezeError(
            f"data.columns.{key}: {twice['image'].n_unique():,} images have several {key}s, such as {example!r}: "
            f"{cells} in {table.row_numbers(rows)}; want one {key} for each image"
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
            f"is no split; want {', '.join(_SPLIT_OF)}, or type data.columns.split=false to cut splits anew"
        )
    splits = given.replace_strict(_SPLIT_OF, return_dtype=pl.Enum(SPLIT_NAMES)).to_physical().to_numpy()
    if not (splits == 0).any():
        raise UnfreezeError(
            f"data.columns.split: no row of {name!r} is train; mend it, or type data.columns.split=false to cut splits "
            "anew"
        )
    named: NDArray[np.str_] = np.array(SPLIT_NAMES)[splits]
    return named


def _read_task(table: Table, name: str, splits: NDArray[np.str_]) -> Task:
    """Return the classes of a column, sorted: by number where all are whole numbers."""
    names = _stripped(table.frame[name])
    classes: list[str] = names.unique().sort().to_list()
    if all(_WHOLE_NUMBER.fullmatch(label) for label in classes):
        classes.sort(key=int)
    labels = names.cast(pl.Enum(classes)).to_physical().to_numpy().astype(np.int64)
    untaught = np.setdiff1d(labels, labels[splits == "train"])
    if len(untaught):
        where = splits[labels == untaught[0]][0]
        raise UnfreezeError(
            f"data.columns.label: {where} has a class {classes[untaught[0]]!r} of {name!r} that train lacks; classes "
            f"that train lacks: {len(untaught)} of {len(classes)}. Move some of their rows to train, or remove them"
        )
    return Task(name, tuple(classes), labels)


def _read_labels(table: Table, names: Sequence[str], separator: str, splits: NDArray[np.str_]) -> list[Task]:
    """Return a task of "0" and "1" for each label that stands in a column, sorted."""
    if len(names) > 1:
        raise UnfreezeError(
            f"data.columns.separator: given beside {len(names)} columns, {', '.join(names)}; want one column whose "
            "cells hold several labels, or columns of 0 and 1 and no separator"
        )
    cells = table.frame[names[0]].fill_null("").str.split(separator).list.eval(pl.element().str.strip_chars())
    labels = sorted(set(cells.explode().drop_nulls().to_list()) - {""})
    if not labels:
        raise UnfreezeError(f"data.columns.label: no cell of {names[0]!r} holds a label")
    tasks = []
    for label in labels:
        having = cells.list.contains(label).to_numpy().astype(np.int64)
        if not having[splits == "train"].any():
            raise UnfreezeError(
                f"data.columns.label: no train image has the label {label!r} of {names[0]!r}; move some of its rows to "
                "train, or remove the label"
            )
        tasks.append(Task(label, ("0", "1"), having))
    return tasks


def _read_groups(names: pl.Series) -> NDArray[np.int64]:
    """Return groups as numbers; an image without a group is one of its own."""
    numbers = _stripped(names).rank("dense").cast(pl.Int64).to_physical()
    alone = numbers.is_null().to_numpy()
    groups = numbers.fill_null(0).to_numpy().copy()
    groups[alone] = groups.max(initial=0) + 1 + np.arange(np.count_nonzero(alone))
    return groups


def _check_groups_are_whole(table: Table, name: str, splits: NDArray[np.str_]) -> None:
    groups = pl.DataFrame([_stripped(table.frame[name]).rename("group"), pl.Series("split", splits)]).drop_nulls()
    counts = groups.group_by("group", "split").len()
    torn = counts.filter(counts["group"].is_duplicated())
    if not len(torn):
        return
    names = torn["group"].unique().sort()
    told = "; ".join(
        f"{group!r} has "
        + ", ".join(
            f"{count} in {split}"
            for split, count in sorted(
                torn.filter(torn["group"] == group).select("split", "len").rows(),
                key=lambda row: SPLIT_NAMES.index(row[0]),
            )
        )
        for group in names.head(3)
    )
    raise UnfreezeError(
        f"data.columns.group: {len(names):,} groups of {name!r} are in several splits: {told}"
        f"{' ...' if len(names) > 3 else ''}. Mend the table, or type data.columns.split=false to cut splits by groups"
    )
