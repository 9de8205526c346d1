"""Tables read by polars: Parquet, and CSV as spreadsheets and scripts write it."""

import codecs
import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unfreeze.errors import UnfreezeError

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 14
_PARQUET, _ZIP, _GZIP = b"PAR1", b"PK\x03\x04", b"\x1f\x8b"
_ROW = "row of the file"


@dataclass(frozen=True, eq=False)
class Table:
    """A table whose cells are text, or null if empty.

    Args:
        frame: Columns by their names in the file, without rows whose cells are all empty.
        rows: Row numbers as a spreadsheet counts them, shape (N,).
    """

    frame: pl.DataFrame
    rows: pl.Series

    def row_numbers(self, where: pl.Series, *, limit: int = 10) -> str:
        """Return the row numbers of a mask as text, such as "rows 2, 3, 7 and 90 more"."""
        numbers = self.rows.filter(where)
        more = f" and {len(numbers) - limit:,} more" if len(numbers) > limit else ""
        return f"row{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers.head(limit).to_list()))}{more}"


def read_table(path: str | os.PathLike[str]) -> Table:
    """Return the rows of a CSV or Parquet file; the format and the delimiter are detected from its content.

    Raises:
        UnfreezeError: If the file is missing, is neither CSV nor Parquet, or has no rows.
    """
    shown = str(path)
    data = _read_bytes(shown)
    is_parquet = data.startswith(_PARQUET)
    frame = _read_parquet(data, shown) if is_parquet else _read_csv(data.removeprefix(codecs.BOM_UTF8), shown)
    frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_ROW) + (1 if is_parquet else 2))
    frame = frame.filter(pl.any_horizontal(pl.exclude(_ROW).is_not_null()))
    if not len(frame):
        raise UnfreezeError(f"data.csv: no rows in {shown!r}; want a header, and below it a row for each image")
    return Table(frame.drop(_ROW), frame[_ROW])


def _read_bytes(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        raise UnfreezeError(
            f"data.csv: {path!r} is a folder; want a CSV or Parquet file, or type data=imagefolder data.root={path}"
        ) from None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
    raise UnfreezeError(f"data.csv: can't read {path!r} ({reason}); want a CSV or Parquet file")


def _read_parquet(data: bytes, shown: str) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(data)
    except (Exception, pl.exceptions.PanicException) as error:  # polars raises all kinds of exceptions for broken files
        raise UnfreezeError(f"data.csv: {shown!r} is not a complete Parquet file ({_first_line(error)})") from None
    return frame.select(_as_text(frame[name]) for name in frame.columns)


def _as_text(column: pl.Series) -> pl.Series:
    """Return a column as text; one without a text form, such as embedded images, is returned unchanged."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
        # pandas writes whole numbers with missing values as floats.
        if ((column.round(0) == column) & (column.abs() < 2**53)).all():
            column = column.cast(pl.Int64)
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        return column
    text = column.cast(pl.String)
    return text.set(text.str.strip_chars() == "", None)


def _read_csv(data: bytes, shown: str) -> pl.DataFrame:
    _check_is_text(data, shown)
    if not data.strip():
        raise UnfreezeError(f"data.csv: {shown!r} is empty; want a header, and below it a row for each image")
    delimiter = _delimiter(data[:_HEAD_BYTES].decode("utf-8", "ignore"))
    try:
        frame = pl.read_csv(data, separator=delimiter, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise UnfreezeError(
            f"data.csv: {_ragged_row(data, delimiter) or _first_line(error)} in {shown!r}; "
            'put cells that have a delimiter or a quote in them between quotes, and write a quote as ""'
        ) from None
    _check_header(data, delimiter, shown)
    names = [name.strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = names
    return frame.select(_as_text(frame[name]) for name in frame.columns)


def _check_header(data: bytes, delimiter: str, shown: str) -> None:
    """Refuse a name that several columns have."""
    lines = io.StringIO(data[:_HEAD_BYTES].decode("utf-8-sig", "ignore"))
    names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise UnfreezeError(f"data.csv: {shown!r} has several columns {repeated[0]!r}; rename all but one")


def _check_is_text(data: bytes, shown: str) -> None:
    if data.startswith(_ZIP):
        raise UnfreezeError(f"data.csv: {shown!r} is a workbook or an archive; save the sheet as CSV UTF-8")
    if data.startswith(_GZIP):
        raise UnfreezeError(f"data.csv: {shown!r} is compressed; unpack it, for example with gunzip")
    if b"\0" in data:
        raise UnfreezeError(f"data.csv: {shown!r} is not text in UTF-8; want CSV UTF-8, or Parquet")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UnfreezeError(
            f"data.csv: line {row} of {shown!r} is not UTF-8; save it as CSV UTF-8, or convert it, for example "
            "with iconv -f latin1 -t utf-8"
        ) from None


def _delimiter(head: str) -> str:
    """Return the delimiter of the cells, one that is in the header."""
    header = head.lstrip().partition("\n")[0]
    lines = head.splitlines()
    complete = lines[:-1] if len(lines) > 2 else lines
    try:
        found = csv.Sniffer().sniff("\n".join(complete[:50]), delimiters=_DELIMITERS).delimiter
    except csv.Error:
        found = ""
    return found if found and found in header else max(_DELIMITERS, key=header.count)


def _ragged_row(data: bytes, delimiter: str) -> str | None:
    """Return a description of the first row with more cells than the header; None if there is none."""
    rows = csv.reader(data.decode("utf-8").splitlines(keepends=True), delimiter=delimiter)
    try:
        width = len(next(row for row in rows if row))
        number, cells = next((rows.line_num, len(row)) for row in rows if len(row) > width)
    except (StopIteration, csv.Error):
        return None
    return f"line {number} has {cells} cells and the header {width}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:120]
