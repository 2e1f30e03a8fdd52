"""From rows of one enterprise and month to one column a month and series, by one pass over the rows.

A monthly table of 5 million rows and ten series takes a second and no more memory than its result; grouping by
enterprise took ten times as long and, on the streaming engine, six times the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["BACK", "CODE", "PRESENT", "Series", "widen"]

CODE = ".code"
"""Column of the enterprise's number: its place among all ids of the holder, sorted."""

BACK = ".back"
"""Column of the months back from month 0."""

PRESENT = ""
"""Name of the series that says whether a month has a row."""


@dataclass(frozen=True)
class Series:
    """One series of a monthly table.

    Attributes:
        column: Its name; ``PRESENT`` says whether there is a row.
        months: Months back that are wanted.
        merge: How several values of one month become one: ``last``, ``sum`` or ``max``.
    """

    column: str
    months: tuple[int, ...]
    merge: str


def widen(rows: pl.LazyFrame, series: Sequence[Series], enterprises: int, prefix: str) -> pl.LazyFrame:
    """One row per enterprise, in the order of ``CODE``; columns ``{prefix}.{column}:{month}`` and ``{prefix}.repeats``.

    ``repeats`` is the same in every row: how many rows there are beyond the first of an enterprise and month.
    A month without a row is null (false in ``PRESENT``). With ``last`` the last row of a month counts, even if it has
    no value there; ``sum`` and ``max`` are over the values that are given. Sums are over sorted values, so that the
    order of rows makes no difference.

    Args:
        rows: ``CODE``, ``BACK`` and the series (numbers, or dates, which become days since 1970-01-01).
        series: What is wanted.
        enterprises: How many there are.
        prefix: Begins the names of the columns.
    """
    columns = [item.column for item in series if item.column != PRESENT]
    schema: dict[str, pl.DataType] = {CODE: pl.UInt32(), f"{prefix}.repeats": pl.UInt32()}
    for item in series:
        kind: pl.DataType = pl.Boolean() if item.column == PRESENT else pl.Float64()
        schema |= {f"{prefix}.{item.column}:{month}": kind for month in item.months}
    months = 1 + max(month for item in series for month in item.months)

    def scatter(frame: pl.DataFrame) -> pl.DataFrame:
        cells = frame[BACK].to_numpy().astype(np.int64) * enterprises + frame[CODE].to_numpy()
        rows_in = np.bincount(cells, minlength=months * enterprises).reshape(months, enterprises)
        there = rows_in > 0
        made = {
            CODE: np.arange(enterprises, dtype=np.uint32),
            f"{prefix}.repeats": np.full(enterprises, rows_in.sum() - there.sum(), dtype=np.uint32),
        }
        del rows_in
        out = pl.DataFrame(made)
        for item in series:
            if item.column == PRESENT:
                out = out.with_columns([pl.Series(f"{prefix}.:{month}", there[month]) for month in item.months])
                continue
            values = _merged(cells, frame[item.column].to_numpy(), item.merge, months * enterprises)
            values = values.reshape(months, enterprises)
            out = out.with_columns(
                [pl.Series(f"{prefix}.{item.column}:{month}", values[month]).fill_nan(None) for month in item.months]
            )
        return out

    numbers = [pl.col(name).to_physical().cast(pl.Float64) for name in columns]
    rows = rows.filter(pl.col(BACK) < months).select(CODE, BACK, *numbers)
    # nothing may be pushed through: what comes out are other rows and columns than go in
    return rows.map_batches(
        scatter, schema=schema, predicate_pushdown=False, projection_pushdown=False, slice_pushdown=False
    )


def _merged(
    cells: npt.NDArray[np.int64], values: npt.NDArray[np.float64], merge: str, size: int
) -> npt.NDArray[np.float64]:
    """One value a cell; not-a-number = none."""
    out = np.full(size, np.nan)
    if merge == "last":
        out[cells] = values  # of several assignments to one cell, numpy leaves the last
        return out
    given = ~np.isnan(values)
    cells, values = cells[given], values[given]
    order = np.lexsort((values, cells))
    cells, values = cells[order], values[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    if len(starts):
        out[cells[starts]] = (np.add if merge == "sum" else np.maximum).reduceat(values, starts)
    return out
