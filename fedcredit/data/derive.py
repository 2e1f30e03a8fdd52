"""A party's features derived from its raw tables, as its catalogue describes both."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl

from fedcredit.catalog.derive import Derived, as_of_day, derive
from fedcredit.catalog.load import load_catalog
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.needs import Needs, available, table_needs
from fedcredit.catalog.plan import Request
from fedcredit.data.derive_files import FolderTables
from fedcredit.data.derive_rows import Bounds, Typing, bounds_of
from fedcredit.data.derive_sql import SqlTables
from fedcredit.data.formats import RawTable
from fedcredit.data.places import expand
from fedcredit.errors import DataError
from fedcredit.shipped import known_file
from fedcredit.spec.model import PartySection

__all__ = ["RawTables", "derive_source", "derived_table", "open_tables"]

_SQLITE = b"SQLite format 3\x00"

RawTables = SqlTables | FolderTables


@contextmanager
def open_tables(source: str, base: Path, place: str) -> Iterator[RawTables]:
    """The raw tables at a place: a database URL, an SQLite file, or a folder of Parquet or CSV files.

    Args:
        source: Which; ``${VARIABLES}`` are expanded.
        base: Folder that a relative path is relative to.
        place: Named in errors.

    Raises:
        DataError: there is no such place.
    """
    with ExitStack() as stack:
        # a URL is expanded part by part, since a password may hold any character
        text = source if "://" in source else expand(source, place)
        if "://" in text:
            yield stack.enter_context(SqlTables(source, base, place))
            return
        path = base / text
        if path.is_dir():
            yield FolderTables(path, place)
            return
        if not path.is_file():
            raise DataError("data.no-file", f"{place}: no such folder or file: {path}")
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                right = "holds no raw tables; give a folder of Parquet or CSV files, an SQLite file or a database URL"
                raise DataError("data.format", f"{place}: {path} {right}")
        yield stack.enter_context(SqlTables(f"sqlite:///{path.resolve()}", base, place))


def derive_source(catalog: Catalog, source: str, base: Path, as_of: dt.date, *, label: bool, place: str) -> Derived:
    """All features that a source can give, and the label if it is wanted.

    Args:
        catalog: The catalogue.
        source: As of ``open_tables``.
        base: As of ``open_tables``.
        as_of: The as-of day.
        label: Whether the label is wanted.
        place: Named in errors.

    Raises:
        DataError: the source does not fit the catalogue.
    """
    if label and catalog.label is None:
        right = f'the catalogue of "{catalog.holder}" has no [label] section; name a catalogue that has one'
        raise DataError("catalog.no-label", f"{place}: label: {right}")
    with open_tables(source, base, place) as tables:
        present = {n: c for n, c in tables.columns(list(catalog.tables)).items() if n in catalog.tables}
        names = available(catalog, present, place)
        if not names:
            raise DataError("data.no-features", f"{place}: the catalogue defines no feature that the source can give")
        needs = table_needs(catalog, names, label=label)
        kept = {n: [c for c in need.columns if c in present[n]] for n, need in needs.items()}
        needs = {n: dataclasses.replace(need, columns=kept[n]) for n, need in needs.items()}
        frames = {n: _lazy(catalog, tables, n, need, as_of, place) for n, need in needs.items()}
        return derive(Request(catalog, frames, as_of, tuple(names), label=label), place)


def _lazy(catalog: Catalog, tables: RawTables, name: str, need: Needs, as_of: dt.date, place: str) -> pl.LazyFrame:
    """One table, with the columns that are needed."""
    if isinstance(tables, FolderTables):
        return tables.scan(name)
    table = catalog.tables[name]
    months = need.months if table.period == "monthly" else None
    # the label looks ahead, and its table is read whole; so do features cut it at the as-of day in their own query
    apart = catalog.label is not None and name == catalog.label.table
    bounds = Bounds() if apart else bounds_of(table, months, as_of)
    typing = Typing(name, table, need.columns)
    lazy = tables.read(name, table, need.columns, bounds, typing)
    typing.refuse(place)
    return lazy


def derived_table(party: PartySection, base: Path) -> RawTable:
    """The features of a party (and its label) as if its source were one table that holds them.

    Raises:
        SpecError: the catalogue is wrong.
        DataError: the source does not fit it.
    """
    place = f"party {party.name}"
    catalog = load_catalog(known_file("catalog", expand(party.catalog or "", place), base))
    as_of = as_of_day(party.as_of or "", f"{place}: as_of")
    derived = derive_source(catalog, party.source, base, as_of, label=party.label is not None, place=place)
    columns: dict[str, pl.Series] = {party.id: derived.ids}
    if derived.label is not None and catalog.label is not None:
        columns[catalog.label.name] = derived.label
    columns |= _checked(derived.columns, party, place)
    return RawTable(pl.DataFrame([column.alias(name) for name, column in columns.items()]))


def _checked(features: Mapping[str, pl.Series], party: PartySection, place: str) -> Mapping[str, pl.Series]:
    if party.id in features:
        raise DataError("data.columns", f'{place}: id: "{party.id}" is a feature of the catalogue; choose another name')
    return features
