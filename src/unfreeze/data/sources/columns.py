"""Columns of a table of images, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from unfreeze.data.sources.table import Table
from unfreeze.errors import UnfreezeError

KNOWN_NAMES = {
    "image": ("image", "path", "file", "filename", "filepath", "image_path", "file_name"),
    "label": ("label", "class", "target", "category", "label_name"),
    "split": ("split", "subset"),
    "group": ("group", "group_id"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Requested columns of a manifest: None for a well-known name, False to ignore even a well-known one.

    Args:
        image: Column of image paths.
        label: Column of class names; several columns are several tasks.
        split: Column of split names: train, val or test.
        group: Column of groups, each of which is kept in one split.
        separator: Separator of several labels in one cell; None if each cell has one label.
    """

    image: str | None = None
    label: str | Sequence[str] | None = None
    split: str | Literal[False] | None = None
    group: str | Literal[False] | None = None
    separator: str | None = None


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns that a table has.

    Args:
        image: Name of the column of image paths.
        labels: Names of the columns of labels.
        split: Name of the column of splits, if any.
        group: Name of the column of groups, if any.
    """

    image: str
    labels: list[str]
    split: str | None
    group: str | None

    def by_key(self) -> dict[str, list[str]]:
        """Return the names of the columns by the key of `data.columns`."""
        return {
            "image": [self.image],
            "label": self.labels,
            "split": [self.split] if self.split else [],
            "group": [self.group] if self.group else [],
        }


def find_columns(table: Table, columns: Columns) -> ColumnNames:
    """Return the names of the requested columns.

    Raises:
        UnfreezeError: If a column is missing, is not text, or has empty cells.
    """
    names = ColumnNames(
        image=_find(table, "image", columns.image),
        labels=_find_labels(table, columns.label),
        split=_find_optional(table, "split", columns.split),
        group=_find_optional(table, "group", columns.group),
    )
    # With a separator an image may have no label; an image without a group is a group of its own.
    may_be_empty = {"group"} if columns.separator is None else {"group", "label"}
    for key, found in names.by_key().items():
        for name in found if key not in may_be_empty else ():
            _check_is_filled(table, key, name)
    return names


def _find(table: Table, key: str, requested: str | None) -> str:
    found = _find_optional(table, key, requested)
    if found is None:
        raise UnfreezeError(
            f"data.columns.{key}: none of the columns is called {', '.join(KNOWN_NAMES[key])}; "
            f"type data.columns.{key}=<column>. {_columns_of(table)}"
        )
    return found


def _find_labels(table: Table, requested: str | Sequence[str] | None) -> list[str]:
    if requested is None or isinstance(requested, str):
        return [_find(table, "label", requested)]
    return list(dict.fromkeys(_find(table, "label", name) for name in requested))


def _find_optional(table: Table, key: str, requested: str | Literal[False] | None) -> str | None:
    """Return the name of the requested or of a well-known column; None if there is none."""
    if requested is False:
        return None
    by_lower = {name.lower(): name for name in reversed(table.frame.columns)}
    if requested is None:
        found = next((by_lower[name] for name in KNOWN_NAMES[key] if name in by_lower), None)
    else:
        found = requested if requested in table.frame.columns else by_lower.get(requested.strip().lower())
        if found is None:
            raise UnfreezeError(f"data.columns.{key}: no column {requested!r}. {_columns_of(table)}")
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
