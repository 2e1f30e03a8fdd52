"""Raw columns as the types that the catalogue says, whatever the source calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from fedcredit.catalog.model import Column

__all__ = ["typed", "unreadable"]

_FLAGS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "t": 1.0, "f": 0.0, "yes": 1.0, "no": 0.0, "y": 1.0, "n": 0.0}
_DAY = "%Y-%m-%d"


def typed(name: str, about: Column, dtype: pl.DataType, *, strict: bool = True) -> pl.Expr:
    """One raw column as Float64 (numbers, flags as 0 and 1), Date, or String; blank text and not-a-number are null.

    Dates in text are ``YYYY-MM-DD``, with or without a time of day, or ``YYYY-MM``.

    Args:
        name: The column.
        about: What the catalogue says of it.
        dtype: As the source has it.
        strict: Whether a value of another type is an error at run time; else it becomes null.
    """
    raw = pl.col(name)
    if dtype == pl.String or dtype in (pl.Categorical, pl.Enum):
        raw = raw.cast(pl.String).str.strip_chars()
        raw = pl.when(raw != "").then(raw)
        return _from_text(raw, about, strict=strict).alias(name)
    temporal, wanted = dtype.is_temporal(), about.type == "date"
    if temporal != wanted and about.type in ("number", "flag", "date") and dtype != pl.Null:
        # a number is no day, nor a day a number, though a library would count days from some epoch
        return _from_text(raw.cast(pl.String), about, strict=strict).alias(name)
    if wanted:
        return raw.cast(pl.Date, strict=strict).alias(name)
    if about.type in ("number", "flag"):
        number = raw.cast(pl.Float64, strict=strict)
        number = pl.when(number.is_not_nan()).then(number)
        return (_flag(number, strict=strict) if about.type == "flag" else number).alias(name)
    if dtype.is_float():  # codes that a source keeps as numbers: 5.0 is "5"
        whole = pl.when(raw == raw.floor()).then(raw.cast(pl.Int64, strict=False)).cast(pl.String)
        raw = pl.coalesce(whole, pl.when(raw.is_not_nan()).then(raw).cast(pl.String))
    return raw.cast(pl.String).alias(name)


def _from_text(raw: pl.Expr, about: Column, *, strict: bool) -> pl.Expr:
    if about.type == "number":
        number = raw.cast(pl.Float64, strict=strict)
        return pl.when(number.is_not_nan()).then(number)
    if about.type == "flag":
        return _flag(raw.str.to_lowercase(), strict=strict, texts=_FLAGS)
    if about.type == "date":
        day = pl.when(raw.str.len_bytes() == 7).then(raw + "-01").otherwise(raw.str.head(10))
        return day.str.to_date(_DAY, strict=strict)
    return raw


def _flag(raw: pl.Expr, *, strict: bool, texts: Mapping[str, float] | None = None) -> pl.Expr:
    known: dict[Any, float] = {0.0: 0.0, 1.0: 1.0} if texts is None else dict(texts)
    if strict:
        return raw.replace_strict({**known, None: None}, return_dtype=pl.Float64)
    return raw.replace_strict(known, default=None, return_dtype=pl.Float64)


def unreadable(name: str, about: Column, dtype: pl.DataType) -> pl.Expr:
    """How many values of a raw column are not of the type that the catalogue says."""
    loose = typed(name, about, dtype, strict=False)
    raw = pl.col(name)
    blank = raw.is_null()
    if dtype == pl.String or dtype in (pl.Categorical, pl.Enum):
        text = raw.cast(pl.String).str.strip_chars()
        blank = blank | (text == "") | ((about.type == "number") & text.str.to_lowercase().is_in(["nan"]))
    elif dtype.is_float():
        blank = blank | raw.is_nan()
    return (loose.is_null() & ~blank).sum().alias(name)
