"""Operators on monthly tables as polars expressions over wide columns, one a month and column.

Everything is row-wise over columns in a fixed order, so the same records give the same bits in any order of rows and
with any number of threads. Formulas stand in ``fedcredit.catalog.features``.
"""

from __future__ import annotations

import datetime as dt
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from fedcredit.catalog import features as kinds
from fedcredit.catalog.wide import PRESENT
from fedcredit.catalog.windows import last_month, month_start

__all__ = ["Cells", "monthly"]


@dataclass(frozen=True)
class Cells:
    """How an operator reads months of one table.

    Attributes:
        get: Column and month back to expression; the column ``PRESENT`` is true where the month has a row.
        static: ``table.column`` of a static table to expression.
        as_of: The as-of day.
        lag: Of the table.
    """

    get: Callable[[str, int], pl.Expr]
    static: Callable[[str], pl.Expr]
    as_of: dt.date
    lag: int

    def window(self, column: str, skip: int, months: int) -> list[pl.Expr]:
        """Values of months ``skip`` to ``skip + months - 1``."""
        return [self.get(column, k) for k in range(skip, skip + months)]

    def first_day(self, k: int) -> dt.date:
        """First day of month ``k``."""
        return month_start(last_month(self.as_of, self.lag) - k)

    def last_day(self, k: int) -> dt.date:
        """Last day of month ``k``."""
        return self.first_day(k - 1) - dt.timedelta(days=1)


def monthly(feature: kinds.ByColumn, cells: Cells) -> pl.Expr:
    """The feature as an expression over the wide columns of its table.

    Raises:
        TypeError: the feature is of a kind that is not about monthly tables.
    """
    build = _BUILD.get(type(feature))
    if build is None:
        raise TypeError(f"kind {feature.kind!r} is not about monthly tables")
    return build(feature, cells)


def _sum(values: Iterable[pl.Expr]) -> pl.Expr:
    """From left to right; null counts nothing, and no value at all is 0."""
    return functools.reduce(operator.add, [value.fill_null(0.0) for value in values])


def _number(conditions: Iterable[pl.Expr]) -> pl.Expr:
    """How many of the conditions hold; null does not hold."""
    return functools.reduce(operator.add, [c.fill_null(value=False).cast(pl.Float64) for c in conditions])


def _known(values: Iterable[pl.Expr]) -> pl.Expr:
    return _number(value.is_not_null() for value in values)


def _over(top: pl.Expr, bottom: pl.Expr) -> pl.Expr:
    """Quotient, null where the part below is not above 0."""
    return pl.when(bottom > 0).then(top / bottom)


def _both(pairs: Iterable[tuple[pl.Expr, pl.Expr]]) -> list[tuple[pl.Expr, pl.Expr]]:
    """Each pair, null in both where either is."""
    found: list[tuple[pl.Expr, pl.Expr]] = []
    for x, y in pairs:
        given = x.is_not_null() & y.is_not_null()
        found.append((pl.when(given).then(x), pl.when(given).then(y)))
    return found


def _mean(values: Sequence[pl.Expr], least: int = 1) -> pl.Expr:
    known = _known(values)
    return pl.when(known >= max(least, 1)).then(_sum(values) / known)


def _median(values: Sequence[pl.Expr]) -> pl.Expr:
    return pl.concat_list(*values).list.drop_nulls().list.median()


def _level(feature: kinds.Level, cells: Cells) -> pl.Expr:
    values = cells.window(feature.column, feature.skip, feature.months)
    by_name: dict[str, Callable[[Sequence[pl.Expr]], pl.Expr]] = {
        "mean": _mean,
        "sum": _sum,
        "median": _median,
        "min": pl.min_horizontal,
        "max": pl.max_horizontal,
        "last": pl.coalesce,
    }
    result = by_name[feature.of](values)
    return pl.when(_known(values) >= feature.least).then(result)


def _trend(feature: kinds.Trend, cells: Cells) -> pl.Expr:
    recent = cells.window(feature.column, feature.skip, feature.recent)
    earlier = cells.window(feature.column, feature.skip + feature.recent, feature.earlier)
    enough = (2 * _known(recent) >= len(recent)) & (2 * _known(earlier) >= len(earlier))
    if feature.of == "slope":
        return pl.when(enough).then(_slope([*recent, *earlier]))
    now, before = _mean(recent), _mean(earlier)
    if feature.of == "difference":
        return pl.when(enough).then(now - before)
    change = _over(now, before)
    if feature.of == "log_ratio":
        return pl.when(enough & (change > 0)).then(change.log())
    return pl.when(enough).then(change - 1)


def _slope(values: Sequence[pl.Expr]) -> pl.Expr:
    """Theil and Sen's, a month, over the mean of the absolute values; index 0 is the most recent month."""
    slopes = [(values[j] - values[k]) / (k - j) for j in range(len(values)) for k in range(j + 1, len(values))]
    return _over(_median(slopes), _mean([value.abs() for value in values]))


def _growth(feature: kinds.Growth, cells: Cells) -> pl.Expr:
    now = cells.window(feature.column, feature.skip, feature.months)
    before = cells.window(feature.column, feature.skip + 12, feature.months)
    pairs = _both(zip(now, before, strict=True))
    enough = 2 * _known(x for x, _ in pairs) >= feature.months
    return pl.when(enough).then(_over(_sum(x for x, _ in pairs), _sum(y for _, y in pairs)) - 1)


def _volatility(feature: kinds.Volatility, cells: Cells) -> pl.Expr:
    values = cells.window(feature.column, feature.skip, feature.months)
    mean, known = _mean(values), _known(values)
    spread = (_sum((value - mean) ** 2 for value in values) / (known - 1)).sqrt()
    return pl.when(known >= feature.least).then(_over(spread, mean))


def _missed(feature: kinds.Missed, cells: Cells) -> pl.Expr:
    months = range(feature.skip, feature.skip + feature.months)
    missed = []
    looked = []
    since = None if feature.since is None else cells.static(feature.since)
    for k in months:
        column = PRESENT if feature.column is None else feature.column
        there = cells.get(column, k) if feature.column is None else cells.get(column, k) > 0
        at = pl.lit(value=True) if since is None else (since <= cells.first_day(k)).fill_null(value=False)
        looked.append(at)
        missed.append(at & ~there.fill_null(value=False))
    count = _number(missed)
    if feature.of == "run":
        count = _number(functools.reduce(operator.and_, missed[: i + 1]) for i in range(len(missed)))
    seen = _number(looked)
    return pl.when(seen > 0).then(count / seen if feature.of == "share" else count)


def _active(feature: kinds.Active, cells: Cells) -> pl.Expr:
    return _number(value > 0 for value in cells.window(feature.column, feature.skip, feature.months))


def _lateness(feature: kinds.Lateness, cells: Cells) -> pl.Expr:
    days, counts = [], []
    epoch = dt.date(1970, 1, 1)
    today = (cells.as_of - epoch).days
    for k in range(feature.skip, feature.skip + feature.months):
        happened = cells.get(feature.column, k).fill_null(today).clip(upper_bound=today)
        late = (happened - (cells.last_day(k) - epoch).days).clip(lower_bound=0.0)
        counted = cells.get(PRESENT, k).fill_null(value=False)
        if feature.due is not None:
            counted = counted & (cells.get(feature.due, k) > 0).fill_null(value=False)
        counts.append(counted)
        days.append(pl.when(counted).then(late))
    if feature.of == "max":
        return pl.max_horizontal(days)
    if feature.of == "share":
        return _over(_number(late > feature.days for late in days), _number(counts))
    return _mean(days)


def _concentration(feature: kinds.Concentration, cells: Cells) -> pl.Expr:
    shares = cells.window(feature.column, feature.skip, feature.months)
    weights = cells.window(feature.weight, feature.skip, feature.months)
    weights = [pl.when(weight > 0).then(weight) for weight in weights]
    pairs = _both(zip(shares, weights, strict=True))
    return _over(_sum(x * w for x, w in pairs), _sum(w for _, w in pairs))


def _ratio(feature: kinds.Ratio, cells: Cells) -> pl.Expr:
    tops = cells.window(feature.column, feature.skip, feature.months)
    pairs = _both(zip(tops, cells.window(feature.per, feature.skip, feature.months), strict=True))
    return _over(_sum(x for x, _ in pairs), _sum(y for _, y in pairs))


def _drop(feature: kinds.Drop, cells: Cells) -> pl.Expr:
    values = cells.window(feature.column, feature.skip, feature.months)
    pairs = zip(values, values[feature.over :], strict=False)
    return pl.max_horizontal([1 - _over(later, earlier) for later, earlier in pairs]).clip(lower_bound=0.0)


def _beyond(feature: kinds.Beyond, cells: Cells) -> pl.Expr:
    values = cells.window(feature.column, feature.skip, feature.months)
    if feature.above is not None:
        hits = [value > feature.above for value in values]
    elif feature.below is not None:
        hits = [value < feature.below for value in values]
    else:
        usual = _median(values)
        hits = [value < (feature.part or 0.0) * usual for value in values]
        return pl.when(usual > 0).then(_over(_number(hits), _known(values)))
    return _over(_number(hits), _known(values))


_BUILD: dict[type, Callable[..., pl.Expr]] = {
    kinds.Level: _level,
    kinds.Trend: _trend,
    kinds.Growth: _growth,
    kinds.Volatility: _volatility,
    kinds.Missed: _missed,
    kinds.Active: _active,
    kinds.Lateness: _lateness,
    kinds.Concentration: _concentration,
    kinds.Ratio: _ratio,
    kinds.Drop: _drop,
    kinds.Beyond: _beyond,
}
