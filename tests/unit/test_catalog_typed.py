"""Raw columns become the types of the catalogue whatever the source calls them; what does not fit is counted."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from fedcredit.catalog.model import Column
from fedcredit.catalog.typed import typed, unreadable

DAY = dt.date(2025, 3, 1)
GOOD: list[tuple[str, str, list[Any], list[Any]]] = [
    ("number", "text", ["1.5", " 2 ", "", "nan", "-3e2"], [1.5, 2.0, None, None, -300.0]),
    ("number", "floats", [1.5, float("nan"), None], [1.5, None, None]),
    ("number", "integers", [1, None], [1.0, None]),
    ("number", "decimals", [Decimal("1.10"), None], [1.1, None]),
    ("number", "booleans", [True, False], [1.0, 0.0]),
    ("number", "nothing", [None, None], [None, None]),
    ("flag", "text", ["Yes", "0", "t", "FALSE", "", "1"], [1.0, 0.0, 1.0, 0.0, None, 1.0]),
    ("flag", "numbers", [1.0, 0.0, None], [1.0, 0.0, None]),
    ("flag", "booleans", [True, None], [1.0, None]),
    ("date", "text", ["2025-03-01", " 2025-03 ", "2025-03-01 10:00:00", ""], [DAY, DAY, DAY, None]),
    ("date", "dates", [DAY, None], [DAY, None]),
    ("date", "moments", [dt.datetime(2025, 3, 1, 23), None], [DAY, None]),
    ("date", "nothing", [None], [None]),
    ("category", "text", [" a ", "", None], ["a", None, None]),
    ("category", "codes", [5, None], ["5", None]),
    ("category", "float codes", [5.0, None], ["5", None]),
    ("category", "fractions", [5.5, 5.0, float("nan")], ["5.5", "5", None]),
    ("id", "numbers", [91, 92], ["91", "92"]),
]
BAD: list[tuple[str, str, list[Any], int]] = [
    ("number", "text", ["1", "much", "", None], 1),
    ("number", "dates", [DAY, None], 1),
    ("flag", "text", ["maybe", "1"], 1),
    ("flag", "numbers", [2.0, 1.0, None], 1),
    ("date", "text", ["01.03.2025", "2025-02-30", "2025-03-01", ""], 2),
    ("date", "numbers that look like days", [20250301, 20250302], 2),
    ("date", "days since an epoch", [20148.0, None], 1),
]


@pytest.mark.parametrize(("kind", "source", "values", "right"), GOOD, ids=[f"{k}-{s}" for k, s, _, _ in GOOD])
def test_values_are_understood(kind: str, source: str, values: list[Any], right: list[Any]) -> None:
    frame, about = pl.DataFrame({"c": values}), Column(type=kind, about=source)  # type: ignore[arg-type]
    for strict in (True, False):
        assert frame.select(typed("c", about, frame.schema["c"], strict=strict))["c"].to_list() == right
    assert frame.select(unreadable("c", about, frame.schema["c"])).item() == 0


@pytest.mark.parametrize(("kind", "source", "values", "wrong"), BAD, ids=[f"{k}-{s}" for k, s, _, _ in BAD])
def test_values_of_another_type_are_errors_and_counted(kind: str, source: str, values: list[Any], wrong: int) -> None:
    frame, about = pl.DataFrame({"c": values}), Column(type=kind, about=source)  # type: ignore[arg-type]
    with pytest.raises(pl.exceptions.PolarsError):
        frame.select(typed("c", about, frame.schema["c"]))
    loose = frame.select(typed("c", about, frame.schema["c"], strict=False))["c"]
    assert frame.select(unreadable("c", about, frame.schema["c"])).item() == wrong
    assert loose.null_count() >= wrong
