"""Compare the raw tables at a place with a catalogue, table by table, so that one is in memory at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedcredit.catalog.check import Presence, TableFindings, check_presence, check_table
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.typed import typed, unreadable
from fedcredit.data.derive import RawTables, open_tables
from fedcredit.data.derive_files import FolderTables
from fedcredit.data.derive_rows import Bounds, Typing
from fedcredit.errors import DataError

__all__ = ["SourceFindings", "check_source"]


@dataclass(frozen=True)
class SourceFindings:
    """What a check found.

    Attributes:
        presence: Tables and columns that are missing, absent or unknown.
        tables: Rows, by table that the source has, in the order of the catalogue.
    """

    presence: Presence
    tables: tuple[TableFindings, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """What keeps features from being derived, each in plain words."""
        found = [f"{name!r} is missing, and the catalogue requires it" for name in self.presence.missing]
        found += [f"table {table.name!r}: {error}" for table in self.tables for error in table.errors]
        return tuple(found)


def check_source(catalog: Catalog, source: str, base: Path, as_of: dt.date, place: str) -> SourceFindings:
    """Compare a source with a catalogue.

    Args:
        catalog: The catalogue.
        source: As of ``open_tables``.
        base: As of ``open_tables``.
        as_of: The as-of day.
        place: Named in errors.

    Raises:
        DataError: there is no such source, or it cannot be read.
    """
    with open_tables(source, base, place) as tables:
        present = tables.columns(list(catalog.tables))
        presence = check_presence(catalog, present)
        return SourceFindings(presence, tuple(_tables(catalog, tables, present, as_of, place)))


def _tables(
    catalog: Catalog, tables: RawTables, present: dict[str, tuple[str, ...]], as_of: dt.date, place: str
) -> Iterator[TableFindings]:
    for name, table in catalog.tables.items():
        columns = [column for column in table.columns if column in present.get(name, ())]
        if table.id not in columns or (table.time is not None and table.time not in columns):
            continue  # said to be missing already; without these nothing can be counted
        if any(key not in columns for key in table.key):
            continue
        frame, wrong = _typed(catalog, tables, name, columns, place)
        yield check_table(catalog, name, frame, wrong, as_of)


def _typed(
    catalog: Catalog, tables: RawTables, name: str, columns: Sequence[str], place: str
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The columns with their types, null where a value is of another, and how many are."""
    table = catalog.tables[name]
    if not isinstance(tables, FolderTables):
        typing = Typing(name, table, columns)
        return tables.read(name, table, columns, Bounds(), typing).collect(), typing.wrong
    lazy = tables.scan(name)
    schema = lazy.collect_schema()
    try:
        counts = lazy.select([unreadable(column, table.columns[column], schema[column]) for column in columns])
        loose = lazy.select([typed(column, table.columns[column], schema[column], strict=False) for column in columns])
        counted, frame = pl.collect_all([counts, loose])
    except (pl.exceptions.PolarsError, OSError) as error:
        right = f"table {name!r} cannot be read ({type(error).__name__}); write its file again"
        raise DataError("data.corrupt", f"{place}: {right}") from None
    return frame, {column: int(counted[column][0]) for column in columns}
