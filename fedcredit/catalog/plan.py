"""All features of a holder as one polars query: scan, cut at the as-of day, normalise ids, aggregate, join, combine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from fedcredit.catalog import events
from fedcredit.catalog import features as kinds
from fedcredit.catalog.labels import label_rows
from fedcredit.catalog.model import Catalog, Table
from fedcredit.catalog.needs import Needs, column_needs, table_needs
from fedcredit.catalog.operators import Cells, monthly
from fedcredit.catalog.prepare import cut, prepare
from fedcredit.catalog.wide import CODE, PRESENT, Series, widen

__all__ = ["REPEATS", "Ids", "Request", "build_plan"]

REPEATS = "repeats"
"""Ends the names of columns that say how many rows a table has beyond the first of an enterprise (and month)."""


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be derived from what.

    Attributes:
        catalog: The catalogue.
        tables: The raw tables by name.
        as_of: The as-of day.
        names: Features.
        label: Whether the label is wanted; only the enterprises that have one are rows then.
    """

    catalog: Catalog
    tables: Mapping[str, pl.LazyFrame]
    as_of: dt.date
    names: Sequence[str]
    label: bool = False


@dataclass(frozen=True, eq=False)
class Ids:
    """The enterprises of a holder.

    Attributes:
        spellings: Columns ``RAW_ID`` (of ``prepare``) and ``CODE``, for every spelling of a valid id.
        count: How many enterprises there are; codes are 0 to ``count - 1``.
    """

    spellings: pl.LazyFrame
    count: int


@dataclass
class _Wanted:
    """What features want of one table: aggregations by the name they get, and months by series."""

    aggregations: dict[str, pl.Expr] = field(default_factory=dict)
    months: dict[str, set[int]] = field(default_factory=dict)


def build_plan(request: Request, ids: Ids) -> pl.LazyFrame:
    """Compile features to one query.

    Args:
        request: What is to be derived.
        ids: The enterprises.

    Returns:
        One row per enterprise, sorted by ``CODE``: the features by name, the label if it is wanted, and
        ``TABLE.repeats`` of tables where they are forbidden, the same in every row.
    """
    catalog = request.catalog
    wanted = {name: _Wanted() for name in catalog.tables}
    values = []
    for name, feature in _simple(catalog, request.names).items():
        values.append(_value(request, name, feature, wanted).alias(_held(name)))
    needs = table_needs(catalog, request.names, label=False)
    groups = {name: _group(request, name, need, ids, wanted[name]) for name, need in needs.items()}
    lazy = groups.pop(catalog.rows)
    kept = [f"{name}.{REPEATS}" for name in needs if catalog.tables[name].duplicates == "error"]
    if request.label and catalog.label is not None:
        rows = label_rows(catalog, catalog.label, request.tables, request.as_of, ids.spellings)
        lazy = lazy.join(rows, on=CODE, how="inner")
        kept.append(catalog.label.name)
    for group in groups.values():
        lazy = lazy.join(group, on=CODE, how="left")
    chosen = [_final(catalog, name).alias(name) for name in request.names]
    return lazy.with_columns(values).select(CODE, *kept, *chosen).sort(CODE)


def _simple(catalog: Catalog, names: Sequence[str]) -> dict[str, kinds.ByColumn]:
    """Features on columns: those asked for, and the parts of the quotients asked for."""
    found: dict[str, kinds.ByColumn] = {}
    for name in names:
        feature = catalog.features[name]
        parts = (feature.top, feature.bottom) if isinstance(feature, kinds.Quotient) else (name,)
        for part in parts:
            found[part] = next(catalog.resolved(part))
    return found


def _held(name: str) -> str:
    return f".feature.{name}"


def _final(catalog: Catalog, name: str) -> pl.Expr:
    feature = catalog.features[name]
    if not isinstance(feature, kinds.Quotient):
        return pl.col(_held(name))
    bottom = pl.col(_held(feature.bottom))
    return pl.when(bottom > 0).then(pl.col(_held(feature.top)) / bottom)


def _value(request: Request, name: str, feature: kinds.ByColumn, wanted: Mapping[str, _Wanted]) -> pl.Expr:
    """The feature over the joined columns; what must be made of its tables for it is written into ``wanted``."""
    table = request.catalog.tables[feature.table]

    def static(at: str) -> pl.Expr:
        holder, _, column = at.partition(".")
        wanted[holder].aggregations[at] = pl.col(column).last()
        return pl.col(at)

    if table.period == "static":
        column = next(column for _, column in column_needs(feature))
        return events.static(feature, static(f"{feature.table}.{column}"), request.as_of)
    if table.period == "event" or isinstance(feature, kinds.Recency):
        at = f"{feature.table}.{name}!"
        wanted[feature.table].aggregations[at] = events.event(feature, table.time or "", request.as_of)
        default = events.without(feature)
        return pl.col(at) if default is None else pl.col(at).fill_null(default)

    def cell(column: str, month: int) -> pl.Expr:
        wanted[feature.table].months.setdefault(column, set()).add(month)
        return pl.col(f"{feature.table}.{column}:{month}")

    return monthly(feature, Cells(cell, static, request.as_of, table.lag))


def _group(request: Request, name: str, need: Needs, ids: Ids, wanted: _Wanted) -> pl.LazyFrame:
    """One row per enterprise of one table; of monthly series, one row for every enterprise of the holder."""
    table = request.catalog.tables[name]
    made = [column for column, made in table.computed.items() if {*made.plus, *made.minus} <= set(need.columns)]
    rows = prepare(cut(request.catalog, name, request.tables[name], need.columns, request.as_of), ids.spellings, made)
    found = dict(wanted.aggregations)
    months = dict(wanted.months)
    if table.duplicates == "error" and table.period == "monthly":
        months.setdefault(PRESENT, {0})
    elif table.duplicates == "error":
        found[f"{name}.{REPEATS}"] = _repeats(table)
    grouped = rows.group_by(CODE).agg([expression.alias(at) for at, expression in found.items()])
    if f"{name}.{REPEATS}" in found:
        grouped = grouped.with_columns(pl.col(f"{name}.{REPEATS}").sum())
    if not months:
        return grouped
    series = [Series(column, tuple(sorted(some)), _merge(table, column)) for column, some in months.items()]
    wide = widen(rows, series, ids.count, name)
    if name == request.catalog.rows:
        return grouped.join(wide, on=CODE, how="left")
    return wide.join(grouped, on=CODE, how="left") if found else wide


def _merge(table: Table, column: str) -> str:
    """How several rows of one month become one value of a series."""
    if table.duplicates != "sum":
        return "last"
    about = table.columns.get(column)
    return "max" if about is not None and about.type in ("date", "flag") else "sum"


def _repeats(table: Table) -> pl.Expr:
    if table.period == "static":
        return pl.len() - 1
    same = table.key or tuple(name for name, about in table.columns.items() if about.required and name != table.id)
    return pl.len() - pl.struct(same).n_unique()
