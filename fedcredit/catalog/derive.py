"""Derive a holder's features: run the query, and say what was dropped."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from fedcredit.catalog.labels import label_ids
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.needs import Needs, table_needs
from fedcredit.catalog.plan import REPEATS, Ids, Request, build_plan
from fedcredit.catalog.prepare import RAW_ID, cut
from fedcredit.catalog.typed import unreadable
from fedcredit.catalog.wide import CODE
from fedcredit.errors import DataError
from fedcredit.kernels.uscc import normalise

__all__ = ["Derived", "Dropped", "as_of_day", "derive"]

ID = ".id"


@dataclass(frozen=True)
class Dropped:
    """Rows of one table, dated up to the as-of day, that no feature sees.

    Attributes:
        rows: Whose id is invalid or missing.
        ids: Distinct invalid ids.
    """

    rows: int
    ids: int


@dataclass(frozen=True, eq=False)
class Derived:
    """What was derived.

    Attributes:
        ids: String (n,), unique, sorted.
        columns: Features by name, Float64 or String (n,).
        label: Int8 (n,), 1 = it happened; None if it was not asked for.
        dropped: By table, what was left out for its id.
        merged: Spellings beyond the first of enterprises that the source spells in several ways.
    """

    ids: pl.Series
    columns: Mapping[str, pl.Series]
    label: pl.Series | None
    dropped: Mapping[str, Dropped]
    merged: int


def as_of_day(text: str, place: str) -> dt.date:
    """The as-of day of a configuration or command line; ``place`` is the key or option.

    Raises:
        DataError: it is no day of the calendar.
    """
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        right = f'{place}: found "{text}"; write a day of the calendar as YYYY-MM-DD'
        raise DataError("catalog.as-of", right) from None


def derive(request: Request, place: str) -> Derived:
    """Derive features (and the label) from raw tables.

    Args:
        request: What from what; the tables hold at least the columns of ``table_needs``.
        place: Named in errors.

    Raises:
        DataError: values of another type than the catalogue says, forbidden duplicates, no row left.
    """
    needs = table_needs(request.catalog, request.names, label=request.label)
    try:
        counts = _spellings(request, needs)
        spelled = _normalised(request.catalog, pl.concat([frame.select(RAW_ID) for frame in counts.values()]))
        valid = spelled.drop_nulls()
        every = valid[ID].unique().sort()
        coded = valid.join(every.to_frame().with_row_index(CODE), on=ID, how="left").select(RAW_ID, CODE)
        frame = build_plan(request, Ids(coded.lazy(), len(every))).collect()
    except pl.exceptions.PolarsError as error:
        _diagnose(request, needs, place)
        right = f"{place}: the tables cannot be read as the catalogue says ({type(error).__name__})"
        raise DataError("catalog.type", f"{right}; see `fedcredit catalog check`") from None
    _refuse_repeats(request, frame, place)
    if frame.height == 0:
        raise DataError("data.empty", f"{place}: no enterprise is left on the as-of day; see `fedcredit catalog check`")
    label = request.catalog.label
    return Derived(
        ids=every.gather(frame[CODE]).alias("id"),
        columns={name: frame[name] for name in request.names},
        label=frame[label.name] if request.label and label is not None else None,
        dropped={name: _dropped(counted, spelled) for name, counted in counts.items() if name != ""},
        merged=len(coded) - len(every),
    )


def _refuse_repeats(request: Request, frame: pl.DataFrame, place: str) -> None:
    for name in request.tables:
        column = f"{name}.{REPEATS}"
        rows = int(frame[column][0] or 0) if column in frame.columns and frame.height else 0
        if rows:
            right = f'{rows} rows repeat an enterprise (and month), and the catalogue says duplicates = "error"'
            raise DataError("catalog.duplicates", f"{place}: table {name!r}: {right}")


def _spellings(request: Request, needs: Mapping[str, Needs]) -> dict[str, pl.DataFrame]:
    """By table: each spelling of an id up to the as-of day, and its rows. Under "": those of the label alone."""
    queries = {}
    for name, need in needs.items():
        table = request.catalog.tables[name]
        dated = [column for column in need.columns if column in (table.id, table.time, table.order)]
        rows = cut(request.catalog, name, request.tables[name], dated, request.as_of).lazy
        queries[name] = rows.group_by(RAW_ID).agg(pl.len().alias("rows"))
    label = request.catalog.label
    if request.label and label is not None:
        raw = label_ids(request.catalog, label, request.tables).drop_nulls()
        queries[""] = raw.group_by(RAW_ID).agg(pl.len().alias("rows"))
    return dict(zip(queries, pl.collect_all(list(queries.values())), strict=True))


def _normalised(catalog: Catalog, raw: pl.DataFrame) -> pl.DataFrame:
    """Each spelling with its id; null where it is none."""
    spellings = raw[RAW_ID].unique()
    make: Callable[[pl.Series], pl.Series] = normalise if catalog.ids == "uscc" else pl.Series.clone
    return pl.DataFrame([spellings, make(spellings).alias(ID)])


def _dropped(counted: pl.DataFrame, ids: pl.DataFrame) -> Dropped:
    invalid = counted.join(ids.drop_nulls(), on=RAW_ID, how="anti")
    return Dropped(rows=int(invalid["rows"].sum()), ids=invalid[RAW_ID].drop_nulls().len())


def _diagnose(request: Request, needs: Mapping[str, Needs], place: str) -> None:
    """Name the first column with values of another type; how many is said, never which."""
    for name, need in needs.items():
        lazy, table = request.tables[name], request.catalog.tables[name]
        schema = lazy.collect_schema()
        counts = lazy.select([unreadable(c, table.columns[c], schema[c]) for c in need.columns]).collect()
        for column in need.columns:
            wrong = int(counts[column][0])
            if wrong:
                about = table.columns[column].type
                right = f"column {column!r} has {wrong} values that are no {about}; correct them at the source"
                raise DataError("catalog.type", f"{place}: table {name!r}: {right}")
