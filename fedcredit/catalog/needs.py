"""What a set of features needs of the raw tables, and which features a source can give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fedcredit.catalog import features as kinds
from fedcredit.catalog.model import Catalog, Table
from fedcredit.catalog.windows import reach
from fedcredit.errors import DataError
from fedcredit.spec.rules import nearest

__all__ = ["Needs", "available", "column_needs", "raw_columns", "table_needs"]


@dataclass
class Needs:
    """What is read of one table.

    Attributes:
        columns: Raw columns, in the order of the catalogue; the id and the time among them.
        months: Months of a monthly table that are read, counted back from month 0; None = all.
    """

    columns: list[str] = field(default_factory=list)
    months: int | None = 0


def column_needs(feature: kinds.ByColumn) -> Iterator[tuple[str, str]]:
    """Table and column (raw or computed) of everything that a feature reads, besides ids and times."""
    for key in ("column", "weight", "per", "due", "until", "term"):
        name = getattr(feature, key, None)
        if name is not None:
            yield feature.table, name
    for name in getattr(feature, "where", {}):
        yield feature.table, name
    if isinstance(feature, kinds.Missed) and feature.since is not None:
        table, _, column = feature.since.partition(".")
        yield table, column


def raw_columns(table: Table, names: Iterable[str]) -> list[str]:
    """Raw columns that these columns are made of or masked by, with id, time, key and order; in catalogue order."""
    wanted = (
        {table.id, *table.key} | ({table.time} if table.time else set()) | ({table.order} if table.order else set())
    )
    for name in names:
        made = table.computed.get(name)
        for part in (name,) if made is None else (*made.plus, *made.minus):
            known = table.columns[part].known
            wanted |= {part} if known is None else {part, known}
    return [name for name in table.columns if name in wanted]


def table_needs(catalog: Catalog, names: Iterable[str], *, label: bool) -> dict[str, Needs]:
    """What is read of each table to derive these features (and the label); the table of the rows is always read.

    In an event table whose duplicates are rows that are the same throughout, all columns that the source must have are
    read, since they say what is the same.
    """
    columns: dict[str, set[str]] = {catalog.rows: set()}
    needs: dict[str, Needs] = {}
    for name in names:
        for feature in catalog.resolved(name):
            columns.setdefault(feature.table, set())
            for holder, column in column_needs(feature):
                columns.setdefault(holder, set()).add(column)
            need = needs.setdefault(feature.table, Needs())
            back = reach(feature)
            need.months = None if back == 0 or need.months is None else max(need.months, back)
    if label and catalog.label is not None:
        columns.setdefault(catalog.label.table, set())
        population = columns.setdefault(catalog.label.population, set())
        population |= {catalog.label.running} if catalog.label.running else set()
    for name, wanted in columns.items():
        table = catalog.tables[name]
        if table.period == "event" and not table.key and table.duplicates != "sum":
            wanted |= {column for column, about in table.columns.items() if about.required}
        needs.setdefault(name, Needs()).columns = raw_columns(table, wanted)
    return {name: needs[name] for name in catalog.tables if name in needs}


def available(catalog: Catalog, present: Mapping[str, Iterable[str]], place: str) -> list[str]:
    """Features that a source with these tables and columns can give: all but those on optional ones that are absent.

    Args:
        catalog: The catalogue.
        present: Columns of each table that the source has.
        place: Named in errors.

    Raises:
        DataError: a table or column that the catalogue requires is missing.
    """
    for name, table in catalog.tables.items():
        if name not in present:
            if table.required:
                right = f"the source has no table {name!r}, which the catalogue requires; {nearest(name, present)}"
                raise DataError("catalog.no-table", f"{place}: {right}")
            continue
        for column, about in table.columns.items():
            if about.required and column not in set(present[name]):
                hint = nearest(column, present[name])
                right = f"has no column {column!r}, which the catalogue requires; {hint}"
                raise DataError("catalog.no-column", f"{place}: table {name!r} {right}")
    return [name for name in catalog.features if _possible(catalog, name, present)]


def _possible(catalog: Catalog, name: str, present: Mapping[str, Iterable[str]]) -> bool:
    for feature in catalog.resolved(name):
        if feature.table not in present:
            return False
        for table, column in column_needs(feature):
            if table not in present:
                return False
            if not set(raw_columns(catalog.tables[table], [column])) <= set(present[table]):
                return False
    return True
