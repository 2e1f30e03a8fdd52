"""The operators of derived features, one class each: formula, unit, and what happens where data are missing.

Time is counted in months back from the as-of day: month 0 is the last month that had wholly passed by then (and by the
table's ``lag``), month 1 the one before. ``x[k]`` is a column in month k. A window is the months ``skip`` to
``skip + months - 1``; nothing can be said about months after the as-of day. Missing stays missing: where a formula
lacks what it needs, the feature is null, never an invented number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fedcredit.catalog.parts import Names, Number, Section, Text

__all__ = [
    "Active",
    "Age",
    "Beyond",
    "ByColumn",
    "Concentration",
    "Count",
    "Drop",
    "Feature",
    "Growth",
    "Lateness",
    "Latest",
    "Level",
    "Missed",
    "Open",
    "Quotient",
    "Ratio",
    "Recency",
    "Total",
    "Trend",
    "Value",
    "Volatility",
]

_LONGEST = 120  # months; ten years of history is more than any holder named in the catalogues keeps

Months = Annotated[int, Field(ge=1, le=_LONGEST)]
Skip = Annotated[int, Field(ge=0, le=_LONGEST)]
Codes = Mapping[Text, Number]


class _Any(Section):
    """What every feature says of itself.

    Attributes:
        about: What it is, in plain words.
        unit: Of the value; empty for a share, a ratio or a category.
        reason: Phrase for an owner who asks why. ``{value}`` stands for the enterprise's own value with its unit,
            ``{percent}`` for a share as a percentage, ``{change}`` for one with its sign.
        monotone: Direction of default risk with the value that credit experience expects. Information only: a run says
            itself what it holds its bins to.
    """

    about: Text
    unit: str = ""
    reason: Text
    monotone: Literal["increasing", "decreasing"] | None = None


class _OfTable(_Any):
    table: Text


class _Monthly(_OfTable):
    """On one column of a monthly table."""

    column: Text
    skip: Skip = 0


class _Event(_OfTable):
    """On the rows of an event table, up to the as-of day.

    ``where`` keeps the rows whose category is one of those listed, column by column.
    """

    where: Mapping[Text, Annotated[Names, Field(min_length=1)]] = Field(default_factory=dict)


class Level(_Monthly):
    """Level of a column over a window.

    Formula: mean, sum, median, min or max of x[k] over the months of the window that have a value; ``last``: the value
    of the most recent of them. Unit: that of the column. Null where fewer than ``least`` months have a value.
    """

    kind: Literal["level"]
    of: Literal["mean", "sum", "median", "min", "max", "last"] = "mean"
    months: Months = 12
    least: Months = 1


class Trend(_Monthly):
    """Change of a column from earlier months to recent ones.

    With R the mean over the first ``recent`` months of the window and E that over the ``earlier`` months before them:
    ``change`` is R / E - 1 (a share), ``log_ratio`` is ln(R / E), ``difference`` is R - E (unit of the column).
    ``slope`` is Theil and Sen's: the median of (x[j] - x[k]) / (k - j) over all pairs j < k among the ``recent`` +
    ``earlier`` months, divided by the mean of |x| there (a share a month); no single month can bend it.

    Null where fewer than half of the months of either part have a value, and where E (for ``log_ratio`` also R, for
    ``slope`` the mean) is not above 0.

    Source: Sen (1968), "Estimates of the regression coefficient based on Kendall's tau", JASA 63.
    """

    kind: Literal["trend"]
    of: Literal["change", "log_ratio", "difference", "slope"] = "change"
    recent: Months = 3
    earlier: Months = 3


class Growth(_Monthly):
    """Growth against the same months of the year before, free of seasons.

    Formula: sum of x[k] / sum of x[k + 12] - 1 over those of the ``months`` (at most 12) that have a value in both
    years. A share. Null where fewer than half of them have, and where the earlier sum is not above 0.
    """

    kind: Literal["growth"]
    months: Annotated[int, Field(ge=1, le=12)] = 12


class Volatility(_Monthly):
    """Coefficient of variation.

    Formula: standard deviation (n - 1) of x[k] over the months of the window that have a value, divided by their mean.
    No unit. Null where fewer than ``least`` months have a value, and where the mean is not above 0.
    """

    kind: Literal["volatility"]
    months: Months = 12
    least: Annotated[int, Field(ge=2, le=_LONGEST)] = 6


class Missed(_OfTable):
    """Months without a record, or without anything in a column.

    A month is missed if it has no row, or with ``column`` if that is null or not above 0 there. ``count``: missed
    months in the window; ``share``: divided by the months looked at; ``run``: missed months in a row up to month
    ``skip``. With ``since``, a date column ``table.column`` of a static table, only months that began on that date or
    later are looked at: a young enterprise has missed nothing. Null where no month is left to be looked at (with
    ``since`` also where that date is missing).
    """

    kind: Literal["missed"]
    column: Text | None = None
    months: Months = 12
    skip: Skip = 0
    of: Literal["count", "share", "run"] = "count"
    since: Text | None = None


class Active(_Monthly):
    """Months with something in a column, in a table that lists only what happened, such as deferrals.

    Formula: months of the window with a row in which ``column`` is above 0. In months. 0 where there is none: such a
    table is complete, so an enterprise that is not in it had none.
    """

    kind: Literal["active"]
    months: Months = 12


class Lateness(_Monthly):
    """Days from the end of a month to the day in a date column, such as that of payment.

    A month counts if it has a row (with ``due``, if that column is above 0 there). Its days are
    max(0, min(d, as-of day) - last day of the month), where d is the date, or the as-of day if nothing is known to
    have happened yet. ``mean`` and ``max`` are over the months of the window that count, in days; ``share`` is the
    share of them with more than ``days`` days. Null where no month counts.
    """

    kind: Literal["lateness"]
    months: Months = 12
    of: Literal["mean", "max", "share"] = "mean"
    days: Annotated[int, Field(ge=0, le=3650)] = 0
    due: Text | None = None


class Concentration(_Monthly):
    """Share of the largest counterparty over a window, the months weighted by what flowed in them.

    Formula: sum of x[k] w[k] / sum of w[k] over the months of the window in which both the share x and the ``weight``
    w have a value and w is above 0. A share. Null where there is no such month.
    """

    kind: Literal["concentration"]
    weight: Text
    months: Months = 12


class Ratio(_Monthly):
    """Ratio of two columns of one table over a window.

    Formula: sum of x[k] / sum of y[k] over the months of the window in which both ``column`` (x) and ``per`` (y) have
    a value. Null where there is no such month, and where the sum below is not above 0.
    """

    kind: Literal["ratio"]
    per: Text
    months: Months = 12


class Drop(_Monthly):
    """Worst fall within a window over ``over`` months.

    Formula: the largest of 1 - x[k] / x[k + over] over all months k and k + over of the window that both have a value,
    the earlier above 0; 0 if it never fell. A share, 1 = to nothing (more if x may be negative). Null where there is no
    such pair.
    """

    kind: Literal["drop"]
    months: Annotated[int, Field(ge=2, le=_LONGEST)] = 12
    over: Months = 3


class Beyond(_Monthly):
    """Share of months beyond a threshold.

    Formula: months with x[k] below ``below`` (or above ``above``) divided by months that have a value, in the window.
    ``part`` is relative: below ``part`` times the median over the window; null where that median is not above 0. Null
    where no month has a value.
    """

    kind: Literal["beyond"]
    months: Months = 12
    below: Number | None = None
    above: Number | None = None
    part: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Recency(_Event):
    """Months since the last event.

    Formula: 12 (Y - y) + (M - m) where the as-of day is in month M of year Y and the last event in month m of year y;
    0 = this month. In a monthly table, ``column`` says when there was one: the last month in which it was above 0.
    Null where there never was one.
    """

    kind: Literal["recency"]
    column: Text | None = None


class Count(_Event):
    """Number of events.

    Formula: rows dated in the ``months`` months of the calendar up to and including that of the as-of day; without
    ``months``, ever. 0 where there is none: a list of events is complete, so an enterprise that is not on it had none.
    """

    kind: Literal["count"]
    months: Months | None = None


class Total(_Event):
    """Sum, mean or largest of a column over events.

    Formula: over the rows that ``count`` counts. The sum of no rows is 0; mean and max of no values are null. Unit:
    that of the column. Rows without a value add nothing.
    """

    kind: Literal["total"]
    column: Text
    months: Months | None = None
    of: Literal["sum", "mean", "max"] = "sum"


class Open(_Event):
    """What has begun and not ended by the as-of day, such as arrears or running loans.

    A row is open if its end is missing or after the as-of day. The end is the date column ``until``, or the row's date
    plus the months in the column ``term``. ``count``: open rows; ``sum`` or ``mean``: of ``column`` over them;
    ``longest``: months of the calendar since the first of them began. 0 where none is open; ``mean`` and ``longest``
    are null there.
    """

    kind: Literal["open"]
    of: Literal["count", "sum", "mean", "longest"] = "count"
    column: Text | None = None
    until: Text | None = None
    term: Text | None = None


class Latest(_Event):
    """Value of a column in the last event.

    The last row by date; of several on one day, the last in the order of the source. ``codes`` turns the texts of a
    category into numbers; a text that is not among them becomes null. Null where there is no event.
    """

    kind: Literal["latest"]
    column: Text
    codes: Codes = Field(default_factory=dict)


class Age(_OfTable):
    """Time from a date in a static table to the as-of day.

    Formula: days between them divided by 365.25 (``years``) or 30.4375 (``months``). Null where the date is missing.
    """

    kind: Literal["age"]
    column: Text
    of: Literal["years", "months"] = "years"


class Value(_OfTable):
    """A column of a static table as it stands: a number, a flag (0 or 1), or a category.

    ``codes`` turns the texts of a category into numbers; a text that is not among them becomes null.
    """

    kind: Literal["value"]
    column: Text
    codes: Codes = Field(default_factory=dict)


class Quotient(_Any):
    """One feature divided by another: consumption per unit of capacity, debt per month of receipts.

    Formula: ``top`` / ``bottom``. Null where either is null, and where ``bottom`` is not above 0.
    """

    kind: Literal["quotient"]
    top: Text
    bottom: Text


ByColumn = (
    Level
    | Trend
    | Growth
    | Volatility
    | Missed
    | Active
    | Lateness
    | Concentration
    | Ratio
    | Drop
    | Beyond
    | Recency
    | Count
    | Total
    | Open
    | Latest
    | Age
    | Value
)

Feature = Annotated[ByColumn | Quotient, Field(discriminator="kind")]
