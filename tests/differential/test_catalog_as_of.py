"""What is dated, booked or paid after the as-of day changes no bit of any feature of any shipped catalogue."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedcredit.catalog.derive import Derived, derive
from fedcredit.catalog.load import load_catalog, parse_catalog
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.needs import available
from fedcredit.catalog.plan import Request
from fedcredit.kernels.uscc import spell

FOLDER = Path(__file__).parents[2] / "configs" / "catalog"
HOLDERS = sorted(path.stem for path in FOLDER.glob("*.toml"))
AS_OF = dt.date(2025, 6, 30)
FIRMS = 40


def make_tables(catalog: Catalog, seed: int) -> dict[str, pl.DataFrame]:
    """Random records of every table, before and after the as-of day, with repeats and several spellings of an id."""
    rng = np.random.default_rng(seed)
    ids = spell(rng.integers(0, 31, (FIRMS, 17)).astype(np.uint8)).to_list()
    tables = {}
    for name, table in catalog.tables.items():
        rows = {"static": FIRMS + 5, "monthly": FIRMS * 40, "event": FIRMS * 4}[table.period]
        frame: dict[str, pl.Series] = {}
        for column, about in table.columns.items():
            if about.type == "id":
                firms = rng.permutation(np.arange(rows) % FIRMS)
                spelt = [ids[i].lower() if rng.random() < 0.1 else ids[i] for i in firms]
                frame[column] = pl.Series([text[:-1] if rng.random() < 0.02 else text for text in spelt])
            elif about.type == "date":
                last = 20 if table.period == "static" and column == table.time else 400
                days = [AS_OF + dt.timedelta(days=int(d)) for d in rng.integers(-900, last, rows)]
                if table.period == "monthly" and column == table.time:
                    days = [day.replace(day=1) for day in days]
                frame[column] = pl.Series([None if column != table.time and rng.random() < 0.2 else d for d in days])
            elif about.type == "number":
                frame[column] = pl.Series(np.round(np.abs(rng.normal(20, 30, rows)), 2))
            elif about.type == "flag":
                frame[column] = pl.Series(rng.random(rows) < 0.5)
            else:
                frame[column] = pl.Series(rng.choice(list(about.values) or ["defendant", "b", "c"], rows))
        tables[name] = pl.DataFrame([values.alias(column) for column, values in frame.items()])
    return tables


def features(catalog: Catalog, tables: Mapping[str, pl.DataFrame]) -> Derived:
    names = available(catalog, {name: frame.columns for name, frame in tables.items()}, "test")
    assert names == list(catalog.features)
    lazy = {name: frame.lazy() for name, frame in tables.items()}
    return derive(Request(catalog, lazy, AS_OF, names), "test")


def frame_of(derived: Derived) -> pl.DataFrame:
    return pl.DataFrame([derived.ids, *(column.alias(name) for name, column in derived.columns.items())])


def future(catalog: Catalog, name: str) -> pl.Expr:
    """Rows of a table dated after the as-of day; a month is dated by its last day, later by the lag."""
    table = catalog.tables[name]
    time = pl.col(table.time or "")
    if table.period == "monthly":
        return time.dt.offset_by(f"{table.lag}mo").dt.month_end() > AS_OF
    return time > AS_OF


def scrambled(frame: pl.DataFrame, keep: set[str], rng: np.random.Generator) -> pl.DataFrame:
    """The same rows with the values of every other column dealt out anew, other numbers among them."""
    columns = []
    for column in frame.iter_columns():
        if column.name in keep:
            columns.append(column)
            continue
        dealt = column.gather(rng.permutation(frame.height))
        columns.append(dealt * 7 + 1 if column.dtype.is_numeric() else dealt)
    return pl.DataFrame(columns)


@pytest.mark.parametrize("holder", HOLDERS)
def test_rows_after_the_as_of_day_change_nothing(holder: str) -> None:
    catalog = load_catalog(FOLDER / f"{holder}.toml")
    tables = make_tables(catalog, seed=3)
    rng = np.random.default_rng(4)
    right = features(catalog, tables)
    seen_future = 0
    for change in ("gone", "altered", "added"):
        other = {}
        for name, frame in tables.items():
            time = catalog.tables[name].time
            past, ahead = frame.filter(~future(catalog, name)), frame.filter(future(catalog, name))
            seen_future += ahead.height
            altered = scrambled(ahead, {time or ""}, rng)
            parts = {"gone": [past], "altered": [past, altered], "added": [altered, past, ahead, ahead]}[change]
            other[name] = pl.concat(parts)
        found = features(catalog, other)
        assert frame_of(found).equals(frame_of(right), null_equal=True), change
        assert found.dropped == right.dropped
    assert seen_future > 50


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_became_known_later_changes_nothing(holder: str) -> None:
    """Other dates after the as-of day, and other values that became known with them, in rows of before."""
    catalog = load_catalog(FOLDER / f"{holder}.toml")
    tables = make_tables(catalog, seed=5)
    right = frame_of(features(catalog, tables))
    other = dict(tables)
    changed = 0
    for name, table in catalog.tables.items():
        dates = [c for c, about in table.columns.items() if about.type == "date" and c != table.time]
        for date in dates:
            late = pl.col(date) > AS_OF
            known = [c for c, about in table.columns.items() if about.known == date]
            changed += other[name].select(late.sum()).item()
            other[name] = other[name].with_columns(
                *(pl.when(late).then(pl.col(c) * 3 + 5).otherwise(pl.col(c)).alias(c) for c in known),
                pl.when(late).then(pl.col(date).dt.offset_by("77d")).otherwise(pl.col(date)).alias(date),
            )
    assert frame_of(features(catalog, other)).equals(right, null_equal=True)
    assert changed > 0 or not any(
        about.type == "date" and c != table.time
        for table in catalog.tables.values()
        for c, about in table.columns.items()
    )


def test_days_counted_after_the_as_of_day_are_not_known() -> None:
    """The bank: a repayment of May counted 31 days late or 300, seen on 30 June, is 30 days late and not paid."""
    catalog = load_catalog(FOLDER / "bank.toml")
    tables = make_tables(catalog, seed=6)
    month = pl.col("month") == dt.date(2025, 5, 1)
    one = tables["repayments"].with_columns(pl.when(month).then(31.0).otherwise(pl.col("days_late")).alias("days_late"))
    two = one.with_columns(
        pl.when(month).then(300.0).otherwise(pl.col("days_late")).alias("days_late"),
        pl.when(month).then(9999.0).otherwise(pl.col("paid")).alias("paid"),
    )
    assert one.filter(month).height > 10
    first = features(catalog, {**tables, "repayments": one})
    second = features(catalog, {**tables, "repayments": two})
    assert frame_of(first).equals(frame_of(second), null_equal=True)
    known = one.with_columns(pl.when(month).then(0.0).otherwise(pl.col("days_late")).alias("days_late"))
    third = features(catalog, {**tables, "repayments": known})
    assert not frame_of(first).equals(frame_of(third), null_equal=True)


def test_a_correction_booked_after_the_as_of_day_is_not_known() -> None:
    text = (FOLDER / "gas.toml").read_text("utf-8")
    text = text.replace("[tables.usage]\n", '[tables.usage]\norder = "booked_on"\n')
    text = text.replace(
        "\n[features.volume_level]", 'booked_on = { type = "date", about = "x" }\n\n[features.volume_level]'
    )
    catalog = parse_catalog(text)
    tables = make_tables(catalog, seed=7)
    right = frame_of(features(catalog, tables))
    late = tables["usage"].with_columns(volume_m3=pl.lit(1e6), booked_on=pl.lit(AS_OF + dt.timedelta(days=1)))
    found = features(catalog, {**tables, "usage": pl.concat([tables["usage"], late])})
    assert frame_of(found).equals(right, null_equal=True)
    soon = late.with_columns(booked_on=pl.lit(AS_OF))
    other = features(catalog, {**tables, "usage": pl.concat([soon, tables["usage"]])})
    assert other.columns["volume_level"].max() == 1e6
