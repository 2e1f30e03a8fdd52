"""Whether a holder's tables are as its catalogue says. All that is found are numbers of rows: no value, no id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from fedcredit.catalog.events import months_of
from fedcredit.catalog.model import Catalog, Column, Table
from fedcredit.catalog.windows import last_month
from fedcredit.kernels.uscc import normalise

__all__ = ["ColumnFindings", "Presence", "TableFindings", "check_presence", "check_table"]


@dataclass(frozen=True)
class Presence:
    """What the source has and lacks, by name.

    Attributes:
        missing: Tables and ``table.column`` that the catalogue requires.
        absent: Optional ones that the source does not have.
        unknown: Those of the source that the catalogue does not describe; nothing reads them.
    """

    missing: tuple[str, ...]
    absent: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class ColumnFindings:
    """Rows of one column.

    Attributes:
        name: The column.
        type: As the catalogue says.
        wrong: Values of another type.
        empty: Rows without a value.
        outside: Values below ``min``, above ``max`` or not among ``values``.
    """

    name: str
    type: str
    wrong: int
    empty: int
    outside: int


@dataclass(frozen=True)
class TableFindings:
    """Rows of one table.

    Attributes:
        name: The table.
        period: As the catalogue says.
        rows: All.
        enterprises: Distinct valid ids.
        invalid: Rows whose id is empty or fails its check; no feature sees them.
        respelt: Rows whose id is spelt otherwise than the standard form, and is understood.
        after: Rows dated after the as-of day; no feature sees them.
        undated: Rows without a date; in monthly and event tables no feature sees them.
        repeats: Rows of one enterprise (and month, or event) beyond the first.
        months: In a monthly table, months of the history up to the as-of day in which any row is.
        expected: Months of history that the catalogue asks for and that can be there by then; 0 of other tables.
        gaps: Months without a row between the first and the last of the same enterprise, over all enterprises.
        columns: The columns that the source has.
        errors: What makes the table unusable, in plain words.
    """

    name: str
    period: str
    rows: int
    enterprises: int
    invalid: int
    respelt: int
    after: int
    undated: int
    repeats: int
    months: int = 0
    expected: int = 0
    gaps: int = 0
    columns: tuple[ColumnFindings, ...] = ()
    errors: tuple[str, ...] = field(default=())


def check_presence(catalog: Catalog, present: Mapping[str, Iterable[str]]) -> Presence:
    """Compare tables and columns by name.

    Args:
        catalog: The catalogue.
        present: Columns of each table of the source that the catalogue knows; other tables with none.
    """
    missing: list[str] = []
    absent: list[str] = []
    unknown = [name for name in present if name not in catalog.tables]
    for name, table in catalog.tables.items():
        if name not in present:
            (missing if table.required else absent).append(name)
            continue
        there = set(present[name])
        for column, about in table.columns.items():
            if column not in there:
                (missing if about.required else absent).append(f"{name}.{column}")
        unknown += [f"{name}.{column}" for column in present[name] if column not in table.columns]
    return Presence(tuple(missing), tuple(absent), tuple(sorted(unknown)))


def check_table(
    catalog: Catalog, name: str, frame: pl.DataFrame, wrong: Mapping[str, int], as_of: dt.date
) -> TableFindings:
    """Count what is odd in one table.

    Args:
        catalog: The catalogue.
        name: Of the table.
        frame: Its columns as far as the source has them, typed as the catalogue says; null where that failed.
        wrong: By column, values that are of another type.
        as_of: The as-of day.
    """
    table = catalog.tables[name]
    columns = tuple(_column(column, table.columns[column], frame, wrong[column]) for column in frame.columns)
    errors = [f"column {c.name!r} has {c.wrong} values that are no {c.type}" for c in columns if c.wrong]
    ids = _ids(catalog, table, frame)
    known = frame.with_columns(ids).drop_nulls(".id")
    dates = frame[table.time] if table.time is not None else pl.Series([], dtype=pl.Date)
    kept, late = _dated(table, known, frame, as_of)
    repeats = kept.height - kept.unique(subset=_same(table, kept)).height
    if repeats and table.duplicates == "error":
        errors.append(f'{repeats} rows repeat an enterprise (and month), and duplicates = "error"')
    if frame.height == 0 and name == catalog.rows:
        errors.append("no row")
    months, gaps = _history(catalog, kept) if table.period == "monthly" else (0, 0)
    return TableFindings(
        name=name,
        period=table.period,
        rows=frame.height,
        enterprises=known[".id"].n_unique(),
        invalid=frame.height - known.height,
        respelt=int((known[".id"] != known[table.id]).sum()),
        after=late,
        undated=dates.null_count(),
        repeats=repeats,
        months=months,
        expected=catalog.months - table.lag if table.period == "monthly" else 0,
        gaps=gaps,
        columns=columns,
        errors=tuple(errors),
    )


def _column(name: str, about: Column, frame: pl.DataFrame, wrong: int) -> ColumnFindings:
    values = frame[name]
    outside = 0
    if about.min is not None:
        outside += int((values < about.min).sum())
    if about.max is not None:
        outside += int((values > about.max).sum())
    if about.values:
        outside += int((~values.is_in(list(about.values))).sum())
    return ColumnFindings(name, about.type, wrong, values.null_count() - wrong, outside)


def _ids(catalog: Catalog, table: Table, frame: pl.DataFrame) -> pl.Series:
    """The id of each row as ``.id``, null where it is invalid."""
    raw = frame[table.id]
    if catalog.ids != "uscc":
        return raw.alias(".id")
    spelt = raw.unique().drop_nulls()
    return raw.replace_strict(spelt, normalise(spelt), default=None, return_dtype=pl.String).alias(".id")


def _dated(table: Table, known: pl.DataFrame, frame: pl.DataFrame, as_of: dt.date) -> tuple[pl.DataFrame, int]:
    """Rows up to the as-of day (with months back as ``.back`` in a monthly table), and how many are after it."""
    if table.time is None:
        return known, 0
    time = pl.col(table.time)
    if table.period == "monthly":
        back = (last_month(as_of, table.lag) - months_of(time)).cast(pl.Int32).alias(".back")
        kept = known.with_columns(back).filter(pl.col(".back") >= 0)
        return kept, int(frame.select((back < 0).sum()).item())
    late = int(frame.select((time > as_of).sum()).item())
    undated = time.is_null() if table.period == "static" else pl.lit(value=False)
    return known.filter((time <= as_of) | undated), late


def _same(table: Table, kept: pl.DataFrame) -> list[str]:
    """Columns that make rows the same enterprise, month or event."""
    if table.period == "monthly":
        return [".id", ".back"]
    if table.period == "static":
        return [".id"]
    return [".id", *(table.key or [name for name in kept.columns if name not in (".id", table.id)])]


def _history(catalog: Catalog, kept: pl.DataFrame) -> tuple[int, int]:
    """Months in which any row is, and gaps of single enterprises."""
    recent = kept.filter(pl.col(".back") < catalog.months)
    back = pl.col(".back")
    spans = recent.group_by(".id").agg((back.max() - back.min() + 1 - back.n_unique().cast(pl.Int32)).alias("gaps"))
    return recent[".back"].n_unique(), int(spans["gaps"].sum())
