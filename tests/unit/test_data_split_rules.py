"""Splits by a list of ids and by time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.data import split
from fedcredit.data.columns import to_time
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.spec.model import SplitSection
from fedcredit.types import PartyId


def table(time: pl.Series | None = None) -> HolderTable:
    ids = pl.Series("id", ["a", "b", "c", "d"])
    return HolderTable(party=PartyId("bank"), ids=ids, label=None, columns={}, digest="", time=time)


def rules(**keys: Any) -> SplitSection:
    return SplitSection.model_validate(keys)


def test_exactly_the_listed_ids_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\ufeffb\r\n\n d \nzz\n", encoding="utf-8")
    mask = split.held_out_rows(table(), rules(test_ids="ids.txt"), tmp_path)
    assert mask.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "no such file"),
        (b"\n \n", "holds no id"),
        (b"\xff\xfe", "cannot be read"),
        (b"z\n", "no row of 'bank'"),
        (b"a\nb\nc\nd\n", "every row of 'bank'"),
    ],
)
def test_bad_lists_of_ids(tmp_path: Path, content: bytes | None, part: str) -> None:
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(DataError, match=part) as caught:
        split.held_out_rows(table(), rules(test_ids="ids.txt"), tmp_path)
    assert "split.test_ids" in caught.value.public


def test_hash_is_the_default(tmp_path: Path) -> None:
    mask = split.held_out_rows(table(), rules(seed=3, test_fraction=0.5), tmp_path)
    assert mask.tolist() == split.test_mask(["a", "b", "c", "d"], 3, 0.5).tolist()


def test_time_from_on_is_held_out(tmp_path: Path) -> None:
    when = pl.Series("when", [2004.0, 2006.0, 2005.0, 2007.0])
    mask = split.held_out_rows(table(when), rules(time="when", test_from=2006), tmp_path)
    assert mask.tolist() == [False, True, False, True]


def test_dates_are_compared_as_iso_text() -> None:
    days = [dt.date(2005, 12, 31), dt.date(2006, 1, 1)]
    for raw in (pl.Series("d", days), pl.Series("d", [day.isoformat() for day in days])):
        when = to_time(raw, text=True, place="party bank")
        assert split.time_test_mask(when, "2006-01-01").tolist() == [False, True]
    moments = pl.Series("d", [dt.datetime(2005, 12, 31, 23), dt.datetime(2006, 1, 1)])
    assert split.time_test_mask(to_time(moments, text=False, place="p"), "2006-01-01").tolist() == [False, True]


def test_only_the_label_holder_decides_a_split_by_time(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the label holder decides"):
        split.held_out_rows(table(), rules(time="when", test_from=2006), tmp_path)


@pytest.mark.parametrize(
    ("series", "test_from", "part"),
    [
        (pl.Series("t", [1.0, 2.0]), "2006", "is a text and column 't' holds numbers"),
        (pl.Series("t", ["a", "b"]), 2006, "is a number and column 't' holds text"),
        (pl.Series("t", [1.0, None]), 2, "missing in 1 rows"),
        (pl.Series("t", [1.0, 2.0]), 3, "all 2 rows are before"),
        (pl.Series("t", [1.0, 2.0]), 1, "all 2 rows are after"),
    ],
)
def test_bad_splits_by_time(series: pl.Series, test_from: float | str, part: str) -> None:
    with pytest.raises(DataError, match=part):
        split.time_test_mask(series, test_from)


def test_time_column_of_a_type_without_order() -> None:
    with pytest.raises(DataError, match="time column 't' is of type Binary"):
        to_time(pl.Series("t", [b"1"]), text=False, place="party bank")
