"""Months back from the as-of day: which month is month 0, and how far back a feature reaches."""

from __future__ import annotations

import datetime as dt

from fedcredit.catalog import features as kinds

__all__ = ["last_month", "month_number", "month_start", "reach"]


def month_number(day: dt.date) -> int:
    """Months since the year 0, so that differences are months."""
    return day.year * 12 + day.month - 1


def month_start(number: int) -> dt.date:
    """First day of the month with that number."""
    return dt.date(number // 12, number % 12 + 1, 1)


def last_month(as_of: dt.date, lag: int) -> int:
    """Number of the last month that had wholly passed on ``as_of``, ``lag`` months before.

    That month is month 0 of every window. On the last day of a month it has passed.
    """
    tomorrow = as_of + dt.timedelta(days=1)
    return month_number(tomorrow) - 1 - lag


def reach(feature: kinds.ByColumn) -> int:
    """How many months of a monthly table a feature needs: it reads months 0 to ``reach - 1`` at most; 0 = all."""
    skip = getattr(feature, "skip", 0)
    if isinstance(feature, kinds.Trend):
        return int(skip) + feature.recent + feature.earlier
    if isinstance(feature, kinds.Growth):
        return int(skip) + 12 + feature.months
    months = getattr(feature, "months", None)
    return 0 if months is None else int(skip) + int(months)
