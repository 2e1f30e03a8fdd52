"""Readers of files: CSV, Parquet, ARFF. Each gives columns as they stand; meaning is decided in ``columns``."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fedcredit.data.places import read_bytes
from fedcredit.errors import DataError

__all__ = ["SUFFIXES", "RawTable", "parse_arff", "parse_csv", "read_file", "refuse_repeated"]

_MAX_HEADER = 1 << 20  # bytes; a longer first line is no header

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".arff", ".arff.gz")


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns as the source gives them.

    Attributes:
        frame: All columns.
        text: Names of columns that are text only because the format knows nothing else (CSV): numbers among them are
            still to be recognised.
    """

    frame: pl.DataFrame
    text: frozenset[str] = frozenset()


def read_file(path: Path, place: str) -> RawTable:
    """Read a file by the ending of its name.

    Raises:
        DataError: unknown ending, missing, unreadable or malformed file.
    """
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return parse_csv(read_bytes(path, place), f"{place}: {path}")
    if name.endswith((".arff", ".arff.gz")):
        return parse_arff(read_bytes(path, place), f"{place}: {path}")
    if name.endswith(".parquet"):
        return _read_parquet(path, place)
    raise DataError("data.format", f"{place}: {path} has an unknown ending; use one of {', '.join(SUFFIXES)}")


def refuse_repeated(names: Sequence[str], place: str) -> None:
    """Refuse columns without a name or with the same name.

    Raises:
        DataError: naming the first.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError("data.columns", f"{place}: has {count} columns named {name!r}; names must be unique")
        if not name.strip():
            raise DataError("data.columns", f"{place}: has a column without a name; name every column")


def parse_csv(content: bytes, place: str) -> RawTable:
    """Comma-separated UTF-8 text with a header; every row must have as many fields as the header.

    Raises:
        DataError: not UTF-8, no header, repeated names, or a row of another length.
    """
    # a row of the file may stand in pyarrow's own message, so that is never passed on
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        header = next(csv.reader(io.StringIO(content[:_MAX_HEADER].decode("utf-8", "replace"))))
    except StopIteration:
        raise DataError("data.empty", f"{place}: is empty; the first line must name the columns") from None
    except csv.Error:
        raise DataError("data.corrupt", f"{place}: the first line is no CSV header") from None
    refuse_repeated(header, place)
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        right = "is no CSV of UTF-8 text in which every row has as many fields as the header"
        raise DataError("data.corrupt", f"{place}: {right}") from None
    return RawTable(_polars(table), frozenset(header))


def _polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _read_parquet(path: Path, place: str) -> RawTable:
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        refuse_repeated(table.column_names, f"{place}: {path}")
        return RawTable(_polars(table))
    except FileNotFoundError:
        raise DataError("data.no-file", f"{place}: no such file: {path}") from None
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        right = f"{place}: {path} is no readable Parquet file ({type(error).__name__}); write it again"
        raise DataError("data.corrupt", right) from None


_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<bare>[^\s'"{]+))\s*(?P<kind>.+)$""", re.IGNORECASE
)


def parse_arff(content: bytes, place: str) -> RawTable:
    """ARFF, the dense numeric and nominal subset: ``?`` is missing, ``%`` starts a comment line.

    Numeric attributes become Float64, nominal ones String.

    Raises:
        DataError: anything outside that subset, a value that its attribute does not allow, a row of another length.

    Source: Weka's ARFF format, https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/
    """
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError("data.corrupt", f"{place}: is not UTF-8 text") from None
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("%")]
    start = next((i for i, line in enumerate(kept) if line.lower() == "@data"), None)
    if start is None:
        raise DataError("data.corrupt", f"{place}: has no @data section; this is no ARFF file")
    attributes = [_attribute(line, place) for line in kept[:start] if line.lower().startswith("@attribute")]
    names = [name for name, _ in attributes]
    refuse_repeated(names, place)
    rows = list(csv.reader(kept[start + 1 :], quotechar="'", skipinitialspace=True))
    wrong = sum(len(row) != len(names) for row in rows)
    if wrong:
        right = f"{wrong} data rows do not have {len(names)} fields (sparse rows are not supported)"
        raise DataError("data.corrupt", f"{place}: {right}")
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return RawTable(
        pl.DataFrame(
            [_arff_column(attribute, values, place) for attribute, values in zip(attributes, columns, strict=True)]
        )
    )


def _attribute(line: str, place: str) -> tuple[str, frozenset[str] | None]:
    """Name, and the allowed values of a nominal attribute (None = numeric)."""
    found = _ATTRIBUTE.match(line)
    kind = found["kind"].strip() if found else ""
    if found:
        name = found["single"] or found["double"] or found["bare"] or ""
        if kind.lower() in ("numeric", "real", "integer"):
            return name, None
        if kind.startswith("{") and kind.endswith("}"):
            values = next(csv.reader([kind[1:-1]], quotechar="'", skipinitialspace=True), [])
            return name, frozenset(value.strip() for value in values)
    raise DataError("data.format", f"{place}: an @attribute is neither numeric nor nominal; only these are supported")


def _arff_column(attribute: tuple[str, frozenset[str] | None], values: Sequence[str], place: str) -> pl.Series:
    name, allowed = attribute
    column = pl.Series(name, values, dtype=pl.String).str.strip_chars()
    column = column.set(column == "?", None)
    if allowed is None:
        typed = column.cast(pl.Float64, strict=False)
        bad = typed.null_count() - column.null_count()
    else:
        typed = column
        bad = int((~column.is_in(list(allowed)) & column.is_not_null()).sum())
    if bad:
        right = f"{place}: column {name!r} has {bad} values that its @attribute does not allow"
        raise DataError("data.corrupt", right)
    return typed
