"""Operators on event and static tables as polars aggregations over the rows of one enterprise.

Sums are over sorted values, so that the same records give the same bits in any order of rows. Formulas stand in
``fedcredit.catalog.features``.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Mapping

import polars as pl

from fedcredit.catalog import features as kinds
from fedcredit.catalog.windows import month_number

__all__ = ["coded", "event", "months_of", "run_out", "static", "total", "without"]


def months_of(day: pl.Expr) -> pl.Expr:
    """Months since the year 0 of a date."""
    return day.dt.year() * 12 + day.dt.month().cast(pl.Int32) - 1


def total(values: pl.Expr) -> pl.Expr:
    """Sum of the values of a group that does not depend on their order; 0 for none.

    As a running sum, since an optimiser may leave out a sort before a plain one, which ignores order but for rounding.
    """
    return values.drop_nulls().sort().cum_sum().last().fill_null(0.0)


def _mean(values: pl.Expr) -> pl.Expr:
    """Mean of values that are given; null for none."""
    return pl.when(values.len() > 0).then(total(values) / values.len())


def coded(value: pl.Expr, codes: Mapping[str, float]) -> pl.Expr:
    """Texts as numbers; other texts become null. Without codes, as it stands."""
    if not codes:
        return value
    return value.replace_strict(dict(codes), default=None, return_dtype=pl.Float64)


def event(feature: kinds.ByColumn, time: str, as_of: dt.date) -> pl.Expr:
    """The feature as an aggregation over an enterprise's rows, all of them dated up to the as-of day.

    Args:
        feature: Of a kind on event tables.
        time: The time column.
        as_of: The as-of day.

    Raises:
        TypeError: the feature is of a kind that is not about events.
    """
    now = month_number(as_of)
    month = months_of(pl.col(time))
    if isinstance(feature, kinds.Recency):
        kept = _where(feature, time) if feature.column is None else pl.col(feature.column) > 0
        return (now - month.filter(kept).max()).cast(pl.Float64)
    if isinstance(feature, kinds.Count):
        return _kept(feature, time, now).sum().cast(pl.Float64)
    if isinstance(feature, kinds.Total):
        values = pl.col(feature.column).filter(_kept(feature, time, now)).drop_nulls()
        return {"sum": total(values), "mean": _mean(values), "max": values.max()}[feature.of]
    if isinstance(feature, kinds.Open):
        return _open(feature, time, as_of)
    if isinstance(feature, kinds.Latest):
        kept = _where(feature, time)
        last = pl.col(feature.column).filter(kept).sort_by(pl.col(time).filter(kept), maintain_order=True).last()
        return coded(last, feature.codes)
    raise TypeError(f"kind {feature.kind!r} is not about events")


def without(feature: kinds.ByColumn) -> float | None:
    """The value of an enterprise that has no row in the event table: a list of events is complete."""
    if isinstance(feature, kinds.Count):
        return 0.0
    if isinstance(feature, (kinds.Total, kinds.Open)) and feature.of in ("sum", "count"):
        return 0.0
    return None


def static(feature: kinds.ByColumn, value: pl.Expr, as_of: dt.date) -> pl.Expr:
    """The feature as an expression over the column of a static table.

    Raises:
        TypeError: the feature is of a kind that is not about static tables.
    """
    if isinstance(feature, kinds.Age):
        days = (as_of - dt.date(1970, 1, 1)).days - value.cast(pl.Int32)
        return days / (365.25 if feature.of == "years" else 30.4375)
    if isinstance(feature, kinds.Value):
        return coded(value, feature.codes)
    raise TypeError(f"kind {feature.kind!r} is not about static tables")


def _where(feature: kinds.Recency | kinds.Count | kinds.Total | kinds.Open | kinds.Latest, time: str) -> pl.Expr:
    kept = pl.col(time).is_not_null()
    for column, values in feature.where.items():
        kept = kept & pl.col(column).is_in(list(values)).fill_null(value=False)
    return kept


def _kept(feature: kinds.Count | kinds.Total, time: str, now: int) -> pl.Expr:
    kept = _where(feature, time)
    return kept if feature.months is None else kept & (months_of(pl.col(time)) > now - feature.months)


def _open(feature: kinds.Open, time: str, as_of: dt.date) -> pl.Expr:
    kept = _where(feature, time) & ~_ended(feature, time, as_of)
    if feature.of == "count":
        return kept.sum().cast(pl.Float64)
    if feature.of == "longest":
        return (month_number(as_of) - months_of(pl.col(time)).filter(kept).min()).cast(pl.Float64)
    values = pl.col(feature.column or "").filter(kept).drop_nulls()
    return total(values) if feature.of == "sum" else _mean(values)


def _ended(feature: kinds.Open, time: str, as_of: dt.date) -> pl.Expr:
    """Whether the end is known and not after the as-of day; dates after it have been made missing before."""
    if feature.until is not None:
        return pl.col(feature.until).is_not_null()
    return run_out(time, feature.term or "", as_of)


def run_out(time: str, term: str, as_of: dt.date) -> pl.Expr:
    """Whether the months in column ``term`` since the date in ``time`` have passed on the as-of day."""
    ends = months_of(pl.col(time)) + pl.col(term).floor()
    now = month_number(as_of)
    longest = calendar.monthrange(as_of.year, as_of.month)[1]
    day = pl.col(time).dt.day().clip(upper_bound=longest)  # the 31st of a month that has 30 is its last day
    return ((ends < now) | ((ends == now) & (day <= as_of.day))).fill_null(value=False)
