"""What a column means: ids, label, numeric or categorical feature, time. All checks on bad input stand here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from fedcredit.errors import DataError

__all__ = ["to_feature", "to_ids", "to_label", "to_time"]

_EXACT = 2.0**53  # largest range in which every whole number is a double


def to_ids(raw: pl.Series, place: str) -> pl.Series:
    """Ids as text, the same whatever the format: 5, 5.0 (a number) and " 5" (text) all become "5"; "005" stays.

    Raises:
        DataError: ids that are missing, repeated, fractions or of another type. How many is said, never which.
    """
    where = f"{place}: id column {raw.name!r}"
    if raw.dtype.is_float():
        whole = raw.fill_nan(None)
        if not bool(((whole == whole.floor()) & (whole.abs() < _EXACT)).all()):
            raise DataError("data.id", f"{where} holds numbers that are not whole; ids are whole numbers or text")
        ids = whole.cast(pl.Int64).cast(pl.String)
    elif raw.dtype.is_integer() or raw.dtype in (pl.Categorical, pl.Enum):
        ids = raw.cast(pl.String)
    elif raw.dtype in (pl.String, pl.Null):
        ids = raw.cast(pl.String).str.strip_chars()
        ids = ids.set(ids == "", None)
    else:
        raise DataError("data.id", f"{where} is of type {raw.dtype}; ids are whole numbers or text")
    if ids.null_count():
        raise DataError(
            "data.id", f"{where} is missing in {ids.null_count()} of {len(ids)} rows; every row needs an id"
        )
    repeated = len(ids) - ids.n_unique()
    if repeated:
        raise DataError("data.id", f"{where} repeats in {repeated} of {len(ids)} rows; ids must be unique")
    return ids.alias("id")


def to_label(raw: pl.Series, words: Mapping[str, int] | None, place: str) -> npt.NDArray[np.int8]:
    """Label as int8, 1 = defaulted; read-only, shape (n,).

    Args:
        raw: The column.
        words: Meaning of each text, where the source is a known set; else the column must hold 0 and 1.
        place: Named in errors.

    Raises:
        DataError: missing values, other values than 0 and 1, or one class only.
    """
    where = f"{place}: label column {raw.name!r}"
    if words and raw.dtype == pl.String:
        values = raw.str.strip_chars().replace_strict(dict(words), default=-1, return_dtype=pl.Float64)
        values = values.set(raw.is_null(), None)
    elif raw.dtype == pl.String:
        text = _blank_is_null(raw)
        values = text.cast(pl.Float64, strict=False)
        values = values.set(values.is_null() & text.is_not_null(), -1.0)
    elif raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null):
        values = raw.cast(pl.Float64).fill_nan(None)
    else:
        raise DataError("data.label", f"{where} is of type {raw.dtype}; it must hold 0 and 1 only (1 = defaulted)")
    if values.null_count():
        right = f"{where} is missing in {values.null_count()} of {len(values)} rows; leave those rows out"
        raise DataError("data.label", right)
    if not bool(values.is_in([0.0, 1.0]).all()):
        found = "is text with" if raw.dtype == pl.String and bool((values == -1.0).all()) else "has"
        right = f"{where} {found} {raw.n_unique()} distinct values; it must hold 0 and 1 only (1 = defaulted)"
        raise DataError("data.label", right)
    if values.n_unique() == 1:
        right = f"{where} has one class only; both 0 and 1 (1 = defaulted) are needed"
        raise DataError("data.label", right)
    label: npt.NDArray[np.int8] = values.to_numpy().astype(np.int8)
    label.setflags(write=False)
    return label


def to_feature(raw: pl.Series, *, text: bool, categorical: bool, place: str) -> pl.Series:
    """A feature as Float64, or as String if it is a category; null = missing (also NaN and empty text).

    Args:
        raw: The column.
        text: Whether numbers may stand there as text, as in CSV.
        categorical: Whether the spec declares it a category.
        place: Named in errors.

    Raises:
        DataError: no value at all, one value only, infinite numbers, numbers mixed with text, a type that is neither
            number nor text.
    """
    where = f"{place}: column {raw.name!r}"
    if raw.dtype.is_numeric():
        column = _numeric(raw, where)
        column = _coded(column) if categorical else column
    elif raw.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null):
        column = _from_text(_blank_is_null(raw.cast(pl.String)), text=text, categorical=categorical, where=where)
    else:
        right = f"{where} is of type {raw.dtype}; derive a number or a category, or leave it out of `columns`"
        raise DataError("data.type", right)
    if column.null_count() == len(column):
        raise DataError("data.missing-column", f"{where} has no value in any row; leave it out of `columns`")
    if column.n_unique() == 1:
        raise DataError("data.constant-column", f"{where} has the same value in every row; leave it out of `columns`")
    return column


def to_time(raw: pl.Series, *, text: bool, place: str) -> pl.Series:
    """The column of a split by time: Float64, or String (dates as ISO text, which sorts by time).

    Raises:
        DataError: a type that has no order in time.
    """
    where = f"{place}: time column {raw.name!r}"
    if raw.dtype in (pl.Date, pl.Datetime):
        return raw.dt.to_string("iso:strict")
    if raw.dtype.is_numeric():
        return _numeric(raw, where)
    if raw.dtype in (pl.String, pl.Null):
        return _from_text(_blank_is_null(raw.cast(pl.String)), text=text, categorical=False, where=where)
    raise DataError("data.type", f"{where} is of type {raw.dtype}; a number, a date or ISO text is needed")


def _blank_is_null(column: pl.Series) -> pl.Series:
    stripped = column.str.strip_chars()
    return stripped.set(stripped.str.to_lowercase().is_in(["", "nan"]), None)


def _numeric(raw: pl.Series, where: str) -> pl.Series:
    column = raw.cast(pl.Float64).fill_nan(None)
    infinite = int(column.is_infinite().sum())
    if infinite:
        right = f"{where} is infinite in {infinite} of {len(column)} rows; cap it or leave it empty at the source"
        raise DataError("data.infinite", right)
    return column


def _from_text(column: pl.Series, *, text: bool, categorical: bool, where: str) -> pl.Series:
    """Recognise numbers in a column that came as text."""
    numbers = column.cast(pl.Float64, strict=False)
    other = numbers.null_count() - column.null_count()
    numeric = other == 0
    if categorical:
        # 1 and 1.0 are one category, but 01 is a code of its own
        coded = numeric and not bool(column.str.contains(r"^[+-]?0\d").any())
        return _coded(_numeric(numbers, where)) if coded and text else column
    if not text:
        return column
    if numeric:
        return _numeric(numbers, where)
    if other < len(column) - column.null_count():
        right = f"{where} mixes numbers and text (text in {other} of {len(column)} rows); leave missing values empty"
        raise DataError("data.mixed", f"{right}, or declare it categorical")
    return column


def _coded(numbers: pl.Series) -> pl.Series:
    """Numbers as names of categories: whole ones without a decimal point."""
    whole = bool(((numbers == numbers.floor()) & (numbers.abs() < _EXACT)).all())
    return (numbers.cast(pl.Int64) if whole else numbers).cast(pl.String)
