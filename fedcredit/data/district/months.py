"""The calendar of a district: months counted from the first of 24, days as text.

Month 0 is the first month of the holders' series, month 23 ends with the as-of date. Latent paths begin at -12, so
that events of three years can be drawn, and end at 35, where the year of the label ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from fedcredit.data.district.draws import Bools, Ints
from fedcredit.errors import DataError

__all__ = ["AS_OF", "EARLIEST", "HORIZON", "LATEST", "SERIES", "WRITTEN", "Months"]

SERIES = 24
"""Months of every series up to and with the as-of month."""

AS_OF = SERIES - 1
"""Number of the as-of month."""

WRITTEN = SERIES + 3
"""Series are written for months [0, WRITTEN): a source does not stop at the day somebody asks for."""

HORIZON = 12
"""Months after the as-of month in which a default counts."""

EARLIEST, LATEST = -12, AS_OF + HORIZON
"""First and last month of the latent paths."""

_EPOCH = date(1970, 1, 1)
_FIRST_DAY = date(1960, 1, 1)


@dataclass(frozen=True)
class Months:
    """Months and days around an as-of date; days are counted from 1970-01-01.

    Args:
        as_of: Last day of a month.

    Raises:
        DataError: it is no last day of a month, or too early or late for a calendar of four digits.
    """

    as_of: date

    def __post_init__(self) -> None:
        if not 2000 <= self.as_of.year <= 2100:
            raise DataError("district.as-of", f"as-of date {self.as_of}: the year must lie in 2000 to 2100")
        if (self.as_of + timedelta(days=1)).day != 1:
            raise DataError("district.as-of", f"as-of date {self.as_of} is not the last day of a month")

    @property
    def as_of_day(self) -> int:
        """The as-of date as a day."""
        return (self.as_of - _EPOCH).days

    def _date(self, month: int) -> date:
        number = self.as_of.year * 12 + self.as_of.month - 1 + month - AS_OF
        return date(number // 12, number % 12 + 1, 1)

    def first(self, month: int) -> int:
        """First day of a month."""
        return (self._date(month) - _EPOCH).days

    def firsts(self, months: ArrayLike) -> Ints:
        """First days of months in [EARLIEST, LATEST + 1]."""
        table = np.array([self.first(month) for month in range(EARLIEST, LATEST + 2)], dtype=np.int64)
        return np.asarray(table[np.asarray(months) - EARLIEST])

    def days(self, month: int) -> int:
        """Number of days of a month."""
        return self.first(month + 1) - self.first(month)

    def of_year(self, month: int) -> int:
        """Month of the year, 1 to 12."""
        return self._date(month).month

    def year(self, month: int) -> int:
        """Year of a month."""
        return self._date(month).year

    def text(self, month: int) -> str:
        """First day of a month, ISO."""
        return self._date(month).isoformat()

    @cached_property
    def _names(self) -> pl.Series:
        last = date(self.as_of.year + 4, 12, 31)
        return pl.date_range(_FIRST_DAY, last, eager=True).dt.to_string("%Y-%m-%d")

    def day_text(self, days: ArrayLike, missing: Bools | None = None) -> pl.Series:
        """Days as ISO text; null where ``missing``."""
        offset = (_FIRST_DAY - _EPOCH).days
        at = np.clip(np.asarray(days, dtype=np.int64) - offset, 0, len(self._names) - 1)
        text = self._names.gather(pl.Series(at, dtype=pl.UInt32))
        if missing is not None:
            text = text.set(pl.Series(missing), None)
        return text
