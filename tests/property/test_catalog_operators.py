"""Every operator against a slow literal twin in plain Python, on random records, windows and as-of days."""

from __future__ import annotations

import calendar
import datetime as dt
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.catalog import features as kinds
from fedcredit.catalog.derive import derive
from fedcredit.catalog.explain import KINDS
from fedcredit.catalog.model import Catalog
from fedcredit.catalog.plan import Request

Row = Mapping[str, Any]
Rows = Sequence[Row]

FIRMS = ("a", "b", "c")
HISTORY = 30


def column(kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": kind, "about": "x", **keys}


def catalog(features: Mapping[str, Mapping[str, Any]], *, lag: int, duplicates: str) -> Catalog:
    tables = {
        "firms": {
            "about": "x",
            "period": "static",
            "time": "since",
            "duplicates": "last",
            "columns": {
                "uscc": column("id"),
                "since": column("date"),
                "born": column("date"),
                "size": column("number"),
                "class": column("category"),
            },
        },
        "series": {
            "about": "x",
            "period": "monthly",
            "time": "month",
            "lag": lag,
            "duplicates": duplicates,
            "columns": {
                "uscc": column("id"),
                "month": column("date"),
                "x": column("number"),
                "y": column("number", known="paid_on", before=0),
                "late": column("number", known="late"),
                "paid_on": column("date"),
            },
            "computed": {"net": {"plus": ["x"], "minus": ["y"], "about": "x"}},
        },
        "events": {
            "about": "x",
            "period": "event",
            "time": "on",
            "duplicates": "sum",
            "columns": {
                "uscc": column("id"),
                "on": column("date"),
                "kind": column("category"),
                "amount": column("number"),
                "ended": column("date"),
                "term": column("number"),
            },
        },
    }
    raw = {
        "format": 1, "holder": "h", "title": "t", "about": "x", "ids": "text", "rows": "firms", "months": HISTORY,
        "tables": tables,
        "features": {name: {"about": "x", "reason": "x", **feature} for name, feature in features.items()},
    }  # fmt: skip
    return Catalog.model_validate(raw)


# ---- the twin: one enterprise at a time, loops over months and rows, no code of the catalogue room


def month_end(year: int, month: int) -> dt.date:
    return dt.date(year, month, calendar.monthrange(year, month)[1])


def months_back(as_of: dt.date, lag: int) -> list[tuple[int, int]]:
    """(year, month) of month 0, 1, 2, …"""
    year, month = as_of.year, as_of.month
    if month_end(year, month) != as_of:
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    found = []
    for k in range(lag + 60):
        if k >= lag:
            found.append((year, month))
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return found


def masked(row: Row, as_of: dt.date) -> dict[str, Any]:
    """A monthly row as it could be read on the as-of day."""
    out = dict(row)
    if row["paid_on"] is not None and row["paid_on"] > as_of:
        out["paid_on"], out["y"] = None, 0.0
    run = (as_of - month_end(row["month"].year, row["month"].month)).days
    if row["late"] is not None and row["late"] > run:
        out["late"] = float(run)
    out["net"] = None if out["x"] is None or out["y"] is None else out["x"] - out["y"]
    return out


class Twin:
    def __init__(self, tables: Mapping[str, Rows], as_of: dt.date, *, lag: int, duplicates: str) -> None:
        self.tables, self.as_of, self.lag, self.duplicates = tables, as_of, lag, duplicates
        self.months = months_back(as_of, lag)

    def month(self, firm: str, k: int) -> dict[str, Any] | None:
        wanted = self.months[k]
        rows = [row for row in self.tables["series"] if row["uscc"] == firm]
        rows = [masked(row, self.as_of) for row in rows if (row["month"].year, row["month"].month) == wanted]
        if not rows:
            return None
        if self.duplicates == "last":
            return dict(rows[-1])
        merged: dict[str, Any] = {}
        for name in ("x", "y", "late", "net", "paid_on"):
            values = [row[name] for row in rows if row[name] is not None]
            merged[name] = (max(values) if name == "paid_on" else sum(sorted(values))) if values else None
        return merged

    def value(self, firm: str, k: int, name: str) -> Any:
        row = self.month(firm, k)
        return None if row is None else row[name]

    def window(self, firm: str, feature: Any, name: str | None = None, months: int | None = None) -> list[Any]:
        span = range(feature.skip, feature.skip + (months or feature.months))
        return [self.value(firm, k, name or feature.column) for k in span]

    def events(self, firm: str, feature: Any) -> list[Row]:
        rows = [row for row in self.tables["events"] if row["uscc"] == firm and row["on"] <= self.as_of]
        rows = [row for row in rows if all(row[c] in values for c, values in feature.where.items())]
        months = getattr(feature, "months", None)
        return rows if months is None else [row for row in rows if self.since(row["on"]) < months]

    def since(self, day: dt.date) -> int:
        return 12 * (self.as_of.year - day.year) + self.as_of.month - day.month

    def firm(self, firm: str) -> Row:
        row = dict([row for row in self.tables["firms"] if row["uscc"] == firm][-1])
        for name in ("since", "born"):
            if row[name] is not None and row[name] > self.as_of:
                row[name] = None
        return row


def known(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def level(twin: Twin, firm: str, f: kinds.Level) -> Any:
    values = known(twin.window(firm, f))
    if len(values) < f.least:
        return None
    by_name: dict[str, Callable[[list[Any]], Any]] = {
        "mean": statistics.fmean, "sum": math.fsum, "median": statistics.median, "min": min, "max": max,
        "last": lambda some: some[0],
    }  # fmt: skip
    return by_name[f.of](values)


def trend(twin: Twin, firm: str, f: kinds.Trend) -> Any:
    every = twin.window(firm, f, months=f.recent + f.earlier)
    now, before = known(every[: f.recent]), known(every[f.recent :])
    if 2 * len(now) < f.recent or 2 * len(before) < f.earlier or not now or not before:
        return None
    if f.of == "slope":
        size = statistics.fmean(abs(v) for v in known(every))
        slopes = [
            (every[j] - every[k]) / (k - j)
            for j in range(len(every))
            for k in range(j + 1, len(every))
            if every[j] is not None and every[k] is not None
        ]
        return statistics.median(slopes) / size if size > 0 else None
    r, e = statistics.fmean(now), statistics.fmean(before)
    if f.of == "difference":
        return r - e
    if e <= 0 or (f.of == "log_ratio" and r <= 0):
        return None
    return math.log(r / e) if f.of == "log_ratio" else r / e - 1


def growth(twin: Twin, firm: str, f: kinds.Growth) -> Any:
    pairs = [(twin.value(firm, k, f.column), twin.value(firm, k + 12, f.column)) for k in
             range(f.skip, f.skip + f.months)]  # fmt: skip
    pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
    bottom = math.fsum(b for _, b in pairs)
    return math.fsum(a for a, _ in pairs) / bottom - 1 if 2 * len(pairs) >= f.months and bottom > 0 else None


def volatility(twin: Twin, firm: str, f: kinds.Volatility) -> Any:
    values = known(twin.window(firm, f))
    if len(values) < f.least or statistics.fmean(values) <= 0:
        return None
    return statistics.stdev(values) / statistics.fmean(values)


def missed(twin: Twin, firm: str, f: kinds.Missed) -> Any:
    since = twin.firm(firm)["since"] if f.since else dt.date.min
    looked = []
    for k in range(f.skip, f.skip + f.months):
        row = twin.month(firm, k)
        there = row is not None and (f.column is None or (row[f.column] is not None and row[f.column] > 0))
        begun = since is not None and dt.date(*twin.months[k], 1) >= since
        looked.append((begun, begun and not there))
    seen = sum(begun for begun, _ in looked)
    if not seen:
        return None
    count = sum(gone for _, gone in looked)
    run = 0
    while run < len(looked) and looked[run][1]:
        run += 1
    return {"count": count, "share": count / seen, "run": run}[f.of]


def active(twin: Twin, firm: str, f: kinds.Active) -> Any:
    return sum(value > 0 for value in known(twin.window(firm, f)))


def lateness(twin: Twin, firm: str, f: kinds.Lateness) -> Any:
    days = []
    for k in range(f.skip, f.skip + f.months):
        row = twin.month(firm, k)
        if row is None or (f.due is not None and not (row[f.due] is not None and row[f.due] > 0)):
            continue
        day = twin.as_of if row[f.column] is None else min(row[f.column], twin.as_of)
        days.append(max(0, (day - month_end(*twin.months[k])).days))
    if not days:
        return None
    over = sum(day > f.days for day in days) / len(days)
    return {"mean": statistics.fmean(days), "max": max(days), "share": over}[f.of]


def concentration(twin: Twin, firm: str, f: kinds.Concentration) -> Any:
    pairs = zip(twin.window(firm, f), twin.window(firm, f, f.weight), strict=True)
    pairs_known = [(x, w) for x, w in pairs if x is not None and w is not None and w > 0]
    if not pairs_known:
        return None
    return math.fsum(x * w for x, w in pairs_known) / math.fsum(w for _, w in pairs_known)


def ratio(twin: Twin, firm: str, f: kinds.Ratio) -> Any:
    pairs = zip(twin.window(firm, f), twin.window(firm, f, f.per), strict=True)
    both = [(x, y) for x, y in pairs if x is not None and y is not None]
    bottom = math.fsum(y for _, y in both)
    return math.fsum(x for x, _ in both) / bottom if bottom > 0 else None


def drop(twin: Twin, firm: str, f: kinds.Drop) -> Any:
    values = twin.window(firm, f)
    falls = [
        1 - values[k] / values[k + f.over]
        for k in range(len(values) - f.over)
        if values[k] is not None and values[k + f.over] is not None and values[k + f.over] > 0
    ]
    return max(0.0, *falls) if falls else None


def beyond(twin: Twin, firm: str, f: kinds.Beyond) -> Any:
    values = known(twin.window(firm, f))
    if not values:
        return None
    if f.above is not None:
        return sum(value > f.above for value in values) / len(values)
    limit = f.below
    if f.part is not None:
        usual = statistics.median(values)
        if usual <= 0:
            return None
        limit = f.part * usual
    return sum(value < limit for value in values if limit is not None) / len(values)


def recency(twin: Twin, firm: str, f: kinds.Recency) -> Any:
    if f.column is None:
        days = [row["on"] for row in twin.events(firm, f)]
        return min(twin.since(day) for day in days) if days else None
    usable = set(twin.months)
    rows = [row for row in twin.tables["series"] if row["uscc"] == firm]
    rows = [row for row in rows if (row["month"].year, row["month"].month) in usable]
    rows = [row for row in rows if (masked(row, twin.as_of)[f.column] or 0) > 0]
    return min(twin.since(row["month"]) for row in rows) if rows else None


def count(twin: Twin, firm: str, f: kinds.Count) -> Any:
    return len(twin.events(firm, f))


def total(twin: Twin, firm: str, f: kinds.Total) -> Any:
    values = known([row[f.column] for row in twin.events(firm, f)])
    if f.of == "sum":
        return math.fsum(values)
    if not values:
        return None
    return statistics.fmean(values) if f.of == "mean" else max(values)


def open_(twin: Twin, firm: str, f: kinds.Open) -> Any:
    rows = []
    for row in twin.events(firm, f):
        end = row[f.until] if f.until else None
        if f.term and row[f.term] is not None:
            number = row["on"].year * 12 + row["on"].month - 1 + math.floor(row[f.term])
            last = calendar.monthrange(number // 12, number % 12 + 1)[1]
            end = dt.date(number // 12, number % 12 + 1, min(row["on"].day, last))
        if end is None or end > twin.as_of:
            rows.append(row)
    if f.of == "count":
        return len(rows)
    if f.of == "longest":
        return max(twin.since(row["on"]) for row in rows) if rows else None
    values = known([row[f.column or ""] for row in rows])
    if f.of == "sum":
        return math.fsum(values)
    return statistics.fmean(values) if values else None


def latest(twin: Twin, firm: str, f: kinds.Latest) -> Any:
    rows = twin.events(firm, f)
    if not rows:
        return None
    newest = max(row["on"] for row in rows)
    value = [row for row in rows if row["on"] == newest][-1][f.column]
    return f.codes.get(value) if f.codes else value


def age(twin: Twin, firm: str, f: kinds.Age) -> Any:
    day = twin.firm(firm)[f.column]
    return None if day is None else (twin.as_of - day).days / {"years": 365.25, "months": 30.4375}[f.of]


def static(twin: Twin, firm: str, f: kinds.Value) -> Any:
    value = twin.firm(firm)[f.column]
    return f.codes.get(value) if f.codes else value


TWINS: dict[str, Callable[[Twin, str, Any], Any]] = {
    "level": level, "trend": trend, "growth": growth, "volatility": volatility, "missed": missed, "active": active,
    "lateness": lateness, "concentration": concentration, "ratio": ratio, "drop": drop, "beyond": beyond,
    "recency": recency, "count": count, "total": total, "open": open_, "latest": latest, "age": age, "value": static,
}  # fmt: skip


# ---- random records and definitions

quarters = st.integers(-8, 60).map(lambda n: n / 4)
maybe = st.none() | quarters
as_of_days = st.sampled_from(
    [dt.date(2025, 12, 31), dt.date(2025, 12, 30), dt.date(2024, 2, 29), dt.date(2025, 3, 1), dt.date(2025, 6, 30)]
)
spans = st.integers(1, 9)
skips = st.integers(0, 3)
numbers = st.sampled_from(["x", "y", "late", "net"])
where: st.SearchStrategy[dict[str, list[str]]] = st.sampled_from([{}, {"kind": ["p"]}, {"kind": ["p", "q"]}])


def feature(kind: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(kind), **keys})


def monthly(kind: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return feature(kind, table=st.just("series"), skip=skips, **{"column": numbers, "months": spans, **keys})


def event(kind: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return feature(kind, table=st.just("events"), where=where, **keys)


def of(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(names)


def thin(feature: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in feature.items() if value is not None}


long_spans = st.integers(4, 9)
DEFINITIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "level": monthly("level", of=of("mean", "sum", "median", "min", "max", "last"), months=long_spans,
                     least=st.integers(1, 4)),
    "trend": feature("trend", table=st.just("series"), skip=skips, column=numbers, recent=st.integers(1, 5),
                     earlier=st.integers(2, 5), of=of("change", "log_ratio", "difference", "slope")),
    "growth": monthly("growth"),
    "volatility": monthly("volatility", months=long_spans, least=st.integers(2, 4)),
    "missed": monthly("missed", column=st.none() | numbers, of=of("count", "share", "run"),
                      since=st.none() | st.just("firms.since")),
    "active": monthly("active"),
    "lateness": monthly("lateness", column=st.just("paid_on"), of=of("mean", "max", "share"), days=st.integers(0, 40),
                        due=st.none() | numbers),
    "concentration": monthly("concentration", weight=numbers),
    "ratio": monthly("ratio", per=numbers),
    "drop": monthly("drop", months=long_spans, over=st.integers(1, 3)),
    "beyond": st.one_of(*(monthly("beyond", **{key: quarters}) for key in ("below", "above")),
                        monthly("beyond", part=st.sampled_from([0.25, 0.5, 1.5]))),
    "recency": event("recency") | feature("recency", table=st.just("series"), column=numbers),
    "count": event("count", months=st.none() | spans),
    "total": event("total", months=st.none() | spans, of=of("sum", "mean", "max"), column=of("amount", "term")),
    "open": event("open", of=of("count", "longest"), until=st.just("ended"))
    | event("open", of=of("count", "longest"), term=st.just("term"))
    | event("open", of=of("sum", "mean"), column=of("amount"), until=st.just("ended")),
    "latest": event("latest", column=of("kind")) | event("latest", column=of("amount"))
    | event("latest", column=of("kind"), codes=st.just({"p": 1.0, "q": 2.0})),
    "age": feature("age", table=st.just("firms"), column=of("born", "since"), of=of("years", "months")),
    "value": feature("value", table=st.just("firms"), column=of("size", "class"))
    | feature("value", table=st.just("firms"), column=of("class"), codes=st.just({"p": 1.0})),
}  # fmt: skip


@st.composite
def records(draw: st.DrawFn, as_of: dt.date) -> dict[str, list[dict[str, Any]]]:
    """Three enterprises; rows up to 25 months before the as-of day and 3 after it."""

    def day(first: int, last: int) -> dt.date:
        return as_of + dt.timedelta(days=draw(st.integers(first, last)))

    def later(start: dt.date, days: int) -> dt.date | None:
        after = draw(st.none() | st.integers(-20, days))
        return None if after is None else start + dt.timedelta(days=after)

    firms = [
        {"uscc": firm, "since": draw(st.none() | st.just(day(-900, 0))), "born": draw(st.none() | st.just(day(-9, 9))),
         "size": draw(maybe), "class": draw(st.sampled_from([None, "p", "q", "r"]))}
        for firm in FIRMS
    ]  # fmt: skip
    series = []
    for _ in range(draw(st.integers(0, 60))):
        back = draw(st.integers(-3, 25))
        number = as_of.year * 12 + as_of.month - 1 - back
        month = dt.date(number // 12, number % 12 + 1, 1)
        paid = later(month_end(month.year, month.month), 400)
        late = draw(st.none() | st.integers(0, 400).map(float))
        series.append(
            {"uscc": draw(st.sampled_from(FIRMS)), "month": month, "x": draw(maybe), "y": draw(maybe), "late": late,
             "paid_on": paid}
        )  # fmt: skip
    events = []
    for _ in range(draw(st.integers(0, 12))):
        on = day(-700, 60)
        events.append(
            {"uscc": draw(st.sampled_from(FIRMS)), "on": on, "kind": draw(st.sampled_from([None, "p", "q", "r"])),
             "amount": draw(maybe), "ended": later(on, 500), "term": draw(st.none() | st.integers(0, 24).map(float))}
        )  # fmt: skip
    return {"firms": firms, "series": series, "events": events}


SCHEMAS: dict[str, dict[str, type[pl.DataType]]] = {
    "firms": {"uscc": pl.String, "since": pl.Date, "born": pl.Date, "size": pl.Float64, "class": pl.String},
    "series": {"uscc": pl.String, "month": pl.Date, "x": pl.Float64, "y": pl.Float64, "late": pl.Float64,
               "paid_on": pl.Date},
    "events": {"uscc": pl.String, "on": pl.Date, "kind": pl.String, "amount": pl.Float64, "ended": pl.Date,
               "term": pl.Float64},
}  # fmt: skip


def frames(tables: Mapping[str, Rows]) -> dict[str, pl.LazyFrame]:
    return {name: pl.LazyFrame(rows, schema=SCHEMAS[name]) for name, rows in tables.items()}


def same(found: Any, right: Any) -> bool:
    if found is None or right is None or isinstance(right, str):
        return bool(found == right)
    return math.isclose(found, right, rel_tol=1e-9, abs_tol=1e-9)


def test_every_kind_has_a_twin_and_is_tried() -> None:
    assert set(TWINS) == set(DEFINITIONS) == set(KINDS) - {"quotient"}


def compare(kind: str, data: st.DataObject) -> None:
    as_of, lag = data.draw(as_of_days), data.draw(st.integers(0, 2))
    duplicates = data.draw(st.sampled_from(["last", "sum"]))
    definitions = {f"f{i}": thin(data.draw(DEFINITIONS[kind])) for i in range(4)}
    tables = data.draw(records(as_of))
    described = catalog(definitions, lag=lag, duplicates=duplicates)
    derived = derive(Request(described, frames(tables), as_of, list(definitions)), "test")
    twin = Twin(tables, as_of, lag=lag, duplicates=duplicates)
    assert derived.ids.to_list() == list(FIRMS)
    for name, definition in definitions.items():
        right = [TWINS[kind](twin, firm, described.features[name]) for firm in FIRMS]
        found = derived.columns[name].to_list()
        assert all(map(same, found, right)), f"{definition}: {found} is not {right}"


@pytest.mark.parametrize("kind", sorted(TWINS))
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_operator_is_its_formula(kind: str, data: st.DataObject) -> None:
    compare(kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TWINS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_operator_is_its_formula_on_many_records(kind: str, data: st.DataObject) -> None:
    compare(kind, data)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), as_of=as_of_days)
def test_quotient_divides_two_features(data: st.DataObject, as_of: dt.date) -> None:
    parts = {"a": thin(data.draw(DEFINITIONS["level"])), "b": thin(data.draw(DEFINITIONS["total"]))}
    described = catalog({**parts, "q": {"kind": "quotient", "top": "a", "bottom": "b"}}, lag=0, duplicates="last")
    tables = data.draw(records(as_of))
    alone = derive(Request(described, frames(tables), as_of, ["q"]), "test").columns["q"].to_list()
    every = derive(Request(described, frames(tables), as_of, ["a", "b", "q"]), "test").columns
    right = [
        top / bottom if top is not None and bottom is not None and bottom > 0 else None
        for top, bottom in zip(every["a"], every["b"], strict=True)
    ]
    assert alone == right == every["q"].to_list()


@settings(max_examples=15, deadline=None)
@given(data=st.data(), as_of=as_of_days)
def test_order_of_rows_makes_no_difference_where_no_row_is_the_last(data: st.DataObject, as_of: dt.date) -> None:
    kinds_summed = ("level", "trend", "ratio", "total", "open", "volatility")
    definitions = {kind: thin(data.draw(DEFINITIONS[kind])) for kind in kinds_summed}
    described = catalog(definitions, lag=0, duplicates="sum")
    tables = data.draw(records(as_of))
    shuffled = {name: data.draw(st.permutations(rows)) for name, rows in tables.items()}
    one = derive(Request(described, frames(tables), as_of, list(definitions)), "test")
    other = derive(Request(described, frames(shuffled), as_of, list(definitions)), "test")
    assert {name: column.to_list() for name, column in one.columns.items()} == {
        name: column.to_list() for name, column in other.columns.items()
    }
