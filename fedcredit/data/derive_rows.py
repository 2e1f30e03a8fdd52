"""Which rows of a raw table are wanted, and how a batch of them gets its types."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from fedcredit.catalog.model import Table
from fedcredit.catalog.typed import typed, unreadable
from fedcredit.catalog.windows import last_month, month_start
from fedcredit.errors import DataError

__all__ = ["Bounds", "Convert", "Typing", "bounds_of"]

Convert = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Bounds:
    """Days between which rows are wanted: ``first`` <= day < ``end``; None = no bound.

    Reading no others saves time only: the query of the features cuts at the as-of day by itself.
    """

    first: dt.date | None = None
    end: dt.date | None = None

    @property
    def open(self) -> bool:
        """Whether every row is wanted."""
        return self.first is None and self.end is None

    def condition(self, time: str) -> str:
        """As SQL about a quoted column of ISO dates, whatever its type; a time of day on the last day is kept."""
        parts = [] if self.first is None else [f"{time} >= '{self.first.isoformat()}'"]
        if self.end is not None:
            parts.append(f"{time} < '{self.end.isoformat()}'")
        return " AND ".join(parts)


def bounds_of(table: Table, months: int | None, as_of: dt.date) -> Bounds:
    """Bounds of what features with a window of ``months`` (None = all) can see of a table on the as-of day."""
    if table.time is None:
        return Bounds()
    if table.period != "monthly":
        return Bounds(end=as_of + dt.timedelta(days=1))
    newest = last_month(as_of, table.lag)
    first = None if months is None else month_start(newest - months + 1)
    return Bounds(first=first, end=month_start(newest + 1))


class Typing:
    """Gives the batches of one table the types of the catalogue, and counts the values that are of another.

    Attributes:
        wrong: By column, how many values were of another type.
    """

    def __init__(self, name: str, table: Table, columns: Sequence[str]) -> None:
        self._name = name
        self._table = table
        self._columns = columns
        self.wrong = dict.fromkeys(columns, 0)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The batch with these types; a value of another type becomes null and is counted."""
        about = self._table.columns
        schema = batch.schema
        with contextlib.suppress(pl.exceptions.PolarsError):  # counting is for the batch that needs it
            return batch.select([typed(name, about[name], schema[name]) for name in self._columns])
        counts = batch.select([unreadable(name, about[name], schema[name]) for name in self._columns])
        for name in self._columns:
            self.wrong[name] += int(counts[name][0])
        return batch.select([typed(name, about[name], schema[name], strict=False) for name in self._columns])

    def refuse(self, place: str) -> None:
        """Check that there was no such value.

        Raises:
            DataError: naming the first column; how many is said, never which.
        """
        for name, wrong in self.wrong.items():
            if wrong:
                kind = self._table.columns[name].type
                right = f"column {name!r} has {wrong} values that are no {kind}; correct them at the source"
                raise DataError("catalog.type", f"{place}: table {self._name!r}: {right}")
