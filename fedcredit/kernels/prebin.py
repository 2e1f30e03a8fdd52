"""Fine bins at the holder of a column: the fixed grouping that every group sum of a run is taken over.

No label is seen here; edges, codes and category names stay with the holder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError

__all__ = ["PrebinRules", "Prebins", "cut_places", "fit_prebins", "kept_categories"]

Codes = NDArray[np.int32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_LABEL_NAMES: Final = 3  # category names written out in a bin's label before "and n more"


@dataclass(frozen=True)
class PrebinRules:
    """How a holder groups one column.

    Args:
        max_prebins: Most bins over ordinary numbers; special and missing bins come on top.
        min_rows: Least rows of a bin among the rows that are fitted, >= 1.
        special: Codes that are no numbers (such as -7, "not applicable"); each gets its own bin where it can.
        categorical: Treat numbers as names. Strings are categorical anyway; ``special`` is then left aside.
        max_categories: Most bins over categories, the "other" bin among them.

    Raises:
        SpecError: A value is out of its range.
    """

    max_prebins: int = 20
    min_rows: int = 100
    special: tuple[float, ...] = ()
    categorical: bool = False
    max_categories: int = 50

    def __post_init__(self) -> None:
        for key, least in (("max_prebins", 1), ("min_rows", 1), ("max_categories", 2)):
            if getattr(self, key) < least:
                raise SpecError("spec.bin", f"bin.{key} is {getattr(self, key)}; it must be at least {least}")
        if not all(np.isfinite(self.special)):
            raise SpecError("spec.special", "party.special has a code that is no finite number; list finite numbers")


@dataclass(frozen=True)
class Prebins:
    """A fixed grouping of one column. Bin order: ordinary bins or categories, special codes, missing.

    Args:
        kind: ``"numeric"`` or ``"categorical"``.
        edges: Numeric: upper-inclusive interior cut points, ascending; q edges make q + 1 ordered bins.
        categories: Categorical: names in each bin. An empty last tuple is the "other" bin, which takes every name
            not listed elsewhere; names of rare categories are not kept.
        special: Numeric: codes of each special bin.
        has_missing: Whether missing values have a bin of their own, the last.
        as_missing: Special codes too rare for a bin; they go where missing values go.
        fallback: Bin of whatever has no bin of its own: missing values if ``has_missing`` is false, and names unseen
            at fit time (the "other" bin if there is one, else the missing bin, else the largest bin).
    """

    kind: Literal["numeric", "categorical"]
    edges: tuple[float, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    special: tuple[tuple[float, ...], ...] = ()
    has_missing: bool = False
    as_missing: tuple[float, ...] = ()
    fallback: int = 0

    @property
    def ordered(self) -> int:
        """How many leading bins are in order of value; 0 for categories."""
        return len(self.edges) + 1 if self.kind == "numeric" else 0

    @property
    def bins(self) -> int:
        """Number of bins."""
        return max(self.ordered, len(self.categories)) + len(self.special) + int(self.has_missing)

    def labels(self) -> list[str]:
        """One readable name a bin, for the holder's own eyes: names hold values of the data."""
        if self.kind == "categorical":
            names = [_category_label(bin_names) for bin_names in self.categories]
        elif not self.edges:
            names = ["any value"]
        else:
            cuts = [f"{edge:.6g}" for edge in self.edges]
            middle = [f"({low}, {high}]" for low, high in pairwise(cuts)]
            names = [f"<= {cuts[0]}", *middle, f"> {cuts[-1]}"]
        names += ["code " + ", ".join(f"{code:g}" for code in codes) for codes in self.special]
        return names + ["missing"] * self.has_missing

    def apply(self, column: pl.Series | NDArray[np.generic]) -> Codes:
        """Bin of each row.

        Numbers unseen at fit time fall between the edges like any other; for unseen names and missing values without
        a bin see ``fallback``.

        Args:
            column: (n,), numbers for a numeric grouping, names or coded numbers for a categorical one; null or NaN is
                missing.

        Returns:
            int32 (n,), each in [0, bins).

        Raises:
            DataError: The column holds text but the grouping is numeric.
        """
        series = _as_series(column)
        missing = self.bins - 1 if self.has_missing else self.fallback
        if self.kind == "categorical":
            names = _as_names(series)
            places = {name: place for place, bin_names in enumerate(self.categories) for name in bin_names}
            known = pl.Series(list(places), dtype=pl.String)
            codes = pl.Series(list(places.values()), dtype=pl.Int32)
            placed = names.replace_strict(known, codes, default=self.fallback, return_dtype=pl.Int32)
            result: Codes = np.where(names.is_null().to_numpy(), missing, placed.fill_null(missing).to_numpy())
            return result.astype(np.int32)
        values = _as_numbers(series)
        codes_of_rows = np.searchsorted(np.asarray(self.edges), values, side="left").astype(np.int32)
        for place, codes_of_bin in enumerate(self.special, start=self.ordered):
            codes_of_rows[np.isin(values, codes_of_bin)] = place
        codes_of_rows[_is_missing(values, self.as_missing)] = missing
        return codes_of_rows


def _category_label(names: tuple[str, ...]) -> str:
    if not names:
        return "other"
    shown = ", ".join(names[:_LABEL_NAMES])
    more = len(names) - _LABEL_NAMES
    return shown if more <= 0 else f"{shown} and {more} more"


def _as_series(column: pl.Series | NDArray[np.generic]) -> pl.Series:
    if isinstance(column, pl.Series):
        return column
    if column.ndim != 1:
        raise DataError("data.column-shape", f"a column has {column.ndim} dimensions; it must have one")
    if column.dtype == np.object_:
        return pl.Series(column.tolist(), dtype=pl.String, strict=True)
    return pl.Series(column)


def _as_numbers(series: pl.Series) -> Floats:
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise DataError(
            "data.column-type", f"column {series.name!r} holds {series.dtype}; a numeric grouping needs numbers"
        )
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _as_names(series: pl.Series) -> pl.Series:
    """Names as strings with null for missing; 3.0 and 3 are both ``"3"``."""
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        return series.cast(pl.String)
    numbers = series.cast(pl.Float64).fill_nan(None)
    known = numbers.drop_nulls().unique().sort()
    names = [str(int(value)) if value.is_integer() else repr(value) for value in known.to_list()]
    return numbers.replace_strict(known, pl.Series(names, dtype=pl.String), default=None, return_dtype=pl.String)


def _is_missing(values: Floats, codes: tuple[float, ...]) -> Bools:
    missing: Bools = np.isnan(values)
    return missing | np.isin(values, codes) if codes else missing


def cut_places(counts: Ints, rules: PrebinRules) -> list[int]:
    """The values after which near-equal groups of counted values end; the last group ends with the last value.

    From the left, each bin takes rows until it is as near as ties allow to an equal share of *what is left*; a value
    that fills several shares gets one bin, and the bins it saved go to the rest.

    Args:
        counts: int64 (m,), rows of each distinct value in ascending order, >= 1; m >= 1.
        rules: Limits.
    """
    upto = np.cumsum(counts)
    total = int(upto[-1])
    cuts: list[int] = []
    done = 0
    for bins_left in range(min(rules.max_prebins, total // rules.min_rows), 1, -1):
        target = done + (total - done) / bins_left
        first = int(np.searchsorted(upto, done + rules.min_rows))
        place = max(int(np.searchsorted(upto, target)), first)
        if place > first and target - upto[place - 1] <= upto[place] - target:
            place -= 1
        if total - int(upto[place]) < rules.min_rows:
            # The nearest boundary leaves too thin a rest; an earlier one may still do.
            place = int(np.searchsorted(upto, total - rules.min_rows, side="right")) - 1
            if place < first:
                break
        cuts.append(place)
        done = int(upto[place])
    return cuts


def _cut_points(values: Floats, rules: PrebinRules) -> tuple[float, ...]:
    """Upper-inclusive cut points of near-equal groups; equal values are never parted."""
    distinct, counts = np.unique(values, return_counts=True)
    return tuple(float(distinct[place]) for place in cut_places(counts, rules))


def _without_thin(cuts: tuple[float, ...], values: Floats, min_rows: int) -> tuple[float, ...]:
    """The cut points that leave every bin ``min_rows`` of some sorted values: a thin bin joins the next one."""
    upto = np.searchsorted(values, np.asarray(cuts), side="right")
    kept: list[float] = []
    done = 0
    for cut, place in zip(cuts, upto.tolist(), strict=True):
        if place - done >= min_rows and len(values) - place >= min_rows:
            kept.append(cut)
            done = place
    return tuple(kept)


def _fit_numeric(name: str, values: Floats, whole: Floats, rules: PrebinRules) -> Prebins:
    if np.isinf(whole).any():
        raise DataError("data.column-infinite", f"column {name!r} has infinite values; leave such cells empty")
    codes = tuple(sorted(set(rules.special)))
    rows_of_code = {code: int((values == code).sum()) for code in codes}
    special = tuple((code,) for code in codes if rows_of_code[code] >= rules.min_rows)
    as_missing = tuple(code for code in codes if rows_of_code[code] < rules.min_rows)
    missing = _is_missing(values, as_missing)
    ordinary = np.sort(values[~_is_missing(values, codes)])
    missing_rows = int(missing.sum())
    has_missing = missing_rows >= rules.min_rows
    # Without a bin of their own the missing rows join the bin of the median, whose risk is the least extreme guess.
    if ordinary.size == 0 or ordinary.size + (0 if has_missing else missing_rows) < rules.min_rows:
        raise DataError(
            "data.column-empty",
            f"column {name!r} has {ordinary.size} ordinary values among the fitted rows; "
            f"at least {rules.min_rows} are needed: leave the column out or declare it categorical",
        )
    cut = np.sort(whole[~_is_missing(whole, codes)])
    edges = _without_thin(_cut_points(cut, rules), ordinary, rules.min_rows)
    median = cut[(cut.size - 1) // 2]
    fallback = int(np.searchsorted(np.asarray(edges), median, side="left"))
    return Prebins(
        "numeric", edges=edges, special=special, has_missing=has_missing, as_missing=as_missing, fallback=fallback
    )


def kept_categories(rows: Sequence[int], missing_rows: int, rules: PrebinRules) -> tuple[int, int]:
    """How many of the most frequent categories stand alone, and how many rows are left for the "other" bin.

    Args:
        rows: Of each category, falling.
        missing_rows: Rows without a value that have no bin of their own.
        rules: Limits.
    """
    kept = sum(count >= rules.min_rows for count in rows)
    if kept > rules.max_categories or (kept == rules.max_categories and kept < len(rows)):
        kept = rules.max_categories - 1
    other_rows = sum(rows[kept:]) + missing_rows
    if 0 < other_rows < rules.min_rows:
        # Too thin for a bin: the rarest kept category joins it, which moves the fewest rows.
        other_rows += rows[kept - 1] if kept else -other_rows
        kept = max(kept - 1, 0)
    return kept, other_rows


def _fit_categorical(names: pl.Series, rules: PrebinRules) -> Prebins:
    missing_rows = names.null_count()
    counted = names.drop_nulls().rename("name").value_counts()
    ranked = counted.sort(["count", "name"], descending=[True, False])
    rows = ranked["count"].to_list()
    has_missing = missing_rows >= rules.min_rows
    stand, other_rows = kept_categories(rows, 0 if has_missing else missing_rows, rules)
    kept = ranked["name"].to_list()[:stand]
    bins: tuple[tuple[str, ...], ...] = tuple((name,) for name in kept)
    if other_rows:
        bins = (*bins, ())
    largest_or_other = len(bins) - 1 if other_rows else 0
    fallback = len(bins) if has_missing and not other_rows else largest_or_other
    return Prebins("categorical", categories=bins, has_missing=has_missing, fallback=fallback)


def fit_prebins(
    column: pl.Series | NDArray[np.generic], fit_rows: Bools, rules: PrebinRules, whole: pl.Series | None = None
) -> Prebins:
    """Group one column without looking at the label; the same rows and rules give the same grouping.

    Numbers are cut at quantiles of ``whole``, so that the cut points do not follow the choice of rows.

    Every bin has at least ``rules.min_rows`` of the fitted rows: a special code that is rarer counts as missing,
    missing values that are rarer join the ordered bin of the median, rarer categories (and rare missing ones) join the
    "other" bin, and an "other" bin that is still too thin takes the rarest kept category in.

    Args:
        column: (n,), numbers or names; null or NaN is missing.
        fit_rows: bool (n,), the rows that may be looked at (the training part).
        rules: Limits.
        whole: The column of the whole table that ``column`` is taken from; None = the fitted rows.

    Raises:
        DataError: The column is constant, empty or infinite among the fitted rows, or too short for two bins.
    """
    series = _as_series(column)
    if fit_rows.dtype != np.bool_ or fit_rows.shape != (len(series),):
        raise DataError("data.fit-rows", f"fit_rows is {fit_rows.dtype} {fit_rows.shape}; it must be bool one a row")
    seen = series.filter(pl.Series(fit_rows))
    name = series.name or "(unnamed)"
    if seen.null_count() == len(seen):
        raise DataError("data.column-empty", f"column {name!r} has no value among the fitted rows; leave it out")
    categorical = rules.categorical or not (series.dtype.is_numeric() or series.dtype == pl.Boolean)
    if categorical:
        result = _fit_categorical(_as_names(seen), rules)
    else:
        numbers = _as_numbers(seen)
        result = _fit_numeric(name, numbers, numbers if whole is None else _as_numbers(whole), rules)
    if result.bins < 2:
        raise DataError(
            "data.column-constant",
            f"column {name!r} makes a single bin of {len(seen)} fitted rows (it is constant, or has no second group of "
            f"{rules.min_rows} rows); leave it out",
        )
    return result
