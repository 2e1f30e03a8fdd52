"""One raw table made ready: typed, cut at the as-of day, masked, under normalised ids, without duplicates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from fedcredit.catalog.events import months_of
from fedcredit.catalog.model import Catalog, Table
from fedcredit.catalog.typed import typed
from fedcredit.catalog.wide import BACK, CODE
from fedcredit.catalog.windows import last_month

__all__ = ["RAW_ID", "Cut", "cut", "prepare", "types_of"]

RAW_ID = ".raw"
"""Column of the id as the source spells it; no column of a catalogue begins with a dot."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A table typed and cut at the as-of day, its ids as the source spells them.

    Attributes:
        name: Of the table.
        table: What the catalogue says of it.
        lazy: The rows.
        as_of: The as-of day.
    """

    name: str
    table: Table
    lazy: pl.LazyFrame
    as_of: dt.date


def types_of(table: Table, lazy: pl.LazyFrame, columns: Sequence[str]) -> list[pl.Expr]:
    """Expressions that give the columns their types, whatever types the source has."""
    schema = lazy.collect_schema()
    return [typed(name, table.columns[name], schema[name]) for name in columns]


def cut(catalog: Catalog, name: str, lazy: pl.LazyFrame, columns: Sequence[str], as_of: dt.date) -> Cut:
    """Type the columns and keep the rows that can be known on the as-of day; the rest is never seen by any feature.

    A row of a static table without a date is kept; of other tables it is not, since nothing shows that it was known.
    The id is still as the source spells it.
    """
    table = catalog.tables[name]
    lazy = lazy.select(types_of(table, lazy, columns)).rename({table.id: RAW_ID})
    if table.time is not None:
        time = pl.col(table.time)
        if table.period == "monthly":
            back = (last_month(as_of, table.lag) - months_of(time)).cast(pl.Int32)
            lazy = lazy.with_columns(back.alias(BACK)).filter(pl.col(BACK) >= 0)
        elif table.period == "event":
            lazy = lazy.filter(time <= as_of)
        else:
            lazy = lazy.filter((time <= as_of) | time.is_null())
    if table.order is not None and table.columns[table.order].type == "date":
        booked = pl.col(table.order)
        lazy = lazy.filter((booked <= as_of) | booked.is_null())
    return Cut(name, table, lazy, as_of)


def prepare(cut_table: Cut, ids: pl.LazyFrame, made: Sequence[str]) -> pl.LazyFrame:
    """Mask what became known later, compute, put the rows under normalised ids, and resolve duplicate events.

    Args:
        cut_table: From ``cut``.
        ids: Columns ``RAW_ID`` and ``CODE``; the rows of a raw id that is not among them are dropped.
        made: Computed columns that are wanted.
    """
    table, lazy = cut_table.table, cut_table.lazy
    lazy = lazy.with_columns(_masked(cut_table))
    lazy = lazy.with_columns([_computed(table, name).alias(name) for name in made])
    lazy = lazy.join(ids, on=RAW_ID, how="left", maintain_order="left").drop(RAW_ID).drop_nulls(CODE)
    if table.order is not None:
        lazy = lazy.sort(table.order, nulls_last=False, maintain_order=True)
    if table.period == "event" and table.duplicates == "last":
        same = [CODE, *table.key] if table.key else None
        lazy = lazy.unique(subset=same, keep="last", maintain_order=True)
    return lazy


def _masked(prepared: Cut) -> list[pl.Expr]:
    """Dates after the as-of day become missing, and values that became known after it what they were before."""
    table, as_of = prepared.table, prepared.as_of
    names = [name for name in prepared.lazy.collect_schema().names() if name in table.columns and name != table.time]
    found = []
    for name in names:
        about = table.columns[name]
        value = pl.col(name)
        if about.known is not None:
            later = _later(prepared, about.known)
            if about.known == name and about.type == "number":
                value = pl.when(later).then(_run(prepared)).otherwise(value)
            else:
                value = pl.when(later).then(pl.lit(about.before)).otherwise(value)
        if about.type == "date":
            value = pl.when(value <= as_of).then(value)
        found.append(value.alias(name))
    return found


def _row_day(prepared: Cut) -> pl.Expr:
    time = pl.col(prepared.table.time or "")
    return time.dt.month_end() if prepared.table.period == "monthly" else time


def _run(prepared: Cut) -> pl.Expr:
    """Days from the row's own date to the as-of day."""
    today = (prepared.as_of - dt.date(1970, 1, 1)).days
    return (today - _row_day(prepared).cast(pl.Int32)).cast(pl.Float64)


def _later(prepared: Cut, known: str) -> pl.Expr:
    """Whether it became known after the as-of day; if nothing says when, it is taken as known with the row."""
    if prepared.table.columns[known].type == "date":
        return (pl.col(known) > prepared.as_of).fill_null(value=False)
    return (pl.col(known) > _run(prepared)).fill_null(value=False)


def _computed(table: Table, name: str) -> pl.Expr:
    made = table.computed[name]
    first, *others = made.plus
    value = pl.col(first)
    for other in others:
        value = value + pl.col(other)
    for other in made.minus:
        value = value - pl.col(other)
    return value
