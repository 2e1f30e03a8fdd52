"""The label. The only query of a catalogue that reads rows dated after the as-of day, which is what a label is."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Mapping

import polars as pl

from fedcredit.catalog.events import run_out
from fedcredit.catalog.model import Catalog, LabelSection
from fedcredit.catalog.needs import raw_columns
from fedcredit.catalog.prepare import RAW_ID, cut, types_of
from fedcredit.catalog.wide import CODE
from fedcredit.catalog.windows import month_number, month_start

__all__ = ["horizon_end", "label_ids", "label_rows"]


def horizon_end(label: LabelSection, as_of: dt.date) -> dt.date:
    """Last day on which what the label is about counts."""
    first = month_start(month_number(as_of) + label.horizon_months)
    longest = calendar.monthrange(first.year, first.month)[1]
    if as_of.day == calendar.monthrange(as_of.year, as_of.month)[1]:
        return first.replace(day=longest)  # a month's end is a month's end away from another
    return first.replace(day=min(as_of.day, longest))


def label_ids(catalog: Catalog, label: LabelSection, tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Raw ids of the table of the label, as ``RAW_ID``."""
    table = catalog.tables[label.table]
    return tables[label.table].select(types_of(table, tables[label.table], [table.id])[0].alias(RAW_ID))


def label_rows(
    catalog: Catalog, label: LabelSection, tables: Mapping[str, pl.LazyFrame], as_of: dt.date, ids: pl.LazyFrame
) -> pl.LazyFrame:
    """One row per enterprise that is a row of the run: ``CODE`` and the label (Int8, 1 = it happened).

    Args:
        catalog: The catalogue.
        label: Its label section.
        tables: The raw tables.
        as_of: The as-of day.
        ids: Columns ``RAW_ID`` and ``CODE``.
    """
    about = catalog.tables[label.population]
    wanted = raw_columns(about, [label.running] if label.running else [])
    population = cut(catalog, label.population, tables[label.population], wanted, as_of).lazy
    if label.running is not None and about.time is not None:
        population = population.filter(~run_out(about.time, label.running, as_of))
    population = population.join(ids, on=RAW_ID, how="inner").select(CODE).unique()
    table = catalog.tables[label.table]
    happened = tables[label.table].select(types_of(table, tables[label.table], [table.id, label.column]))
    day = pl.col(label.column)
    happened = happened.rename({table.id: RAW_ID}).filter(day <= horizon_end(label, as_of))
    by_id = happened.join(ids, on=RAW_ID, how="inner").group_by(CODE)
    events = by_id.agg((day <= as_of).any().alias(".before"), (day > as_of).any().alias(".after"))
    rows = population.join(events, on=CODE, how="left")
    if label.exclude_before:
        rows = rows.filter(~pl.col(".before").fill_null(value=False))
    return rows.select(CODE, pl.col(".after").fill_null(value=False).cast(pl.Int8).alias(label.name))
