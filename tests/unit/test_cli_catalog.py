"""``catalog show`` and ``catalog check``: what is printed, numbers of rows only, exit codes, one line of error."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedcredit.cli import main
from fedcredit.kernels.uscc import spell

FOLDER = Path(__file__).parents[2] / "configs" / "catalog"
IDS = spell(np.random.default_rng(2).integers(0, 31, (20, 17)).astype(np.uint8)).to_list()
SECRET = 31337.25


def write(folder: Path, **changes: pl.DataFrame | None) -> Path:
    """An electricity company: twenty customers, 24 months and one after the as-of day, one firm spelt in two ways."""
    months = [dt.date(2024 + k // 12, k % 12 + 1, 1) for k in range(25)]
    usage = [
        {"uscc": uscc, "month": month, "kwh": SECRET, "peak_kwh": 1.0, "bill": 2.0, "paid": 2.0,
         "paid_on": month + dt.timedelta(days=40)}
        for uscc in IDS
        for month in months
        if not (uscc == IDS[3] and month.year == 2025 and month.month in (3, 4))
    ]  # fmt: skip
    tables: dict[str, pl.DataFrame | None] = {
        "accounts": pl.DataFrame({"uscc": IDS, "supplied_from": dt.date(2020, 1, 1), "capacity_kva": 50.0}),
        "usage": pl.DataFrame(usage),
        "breaches": pl.DataFrame({"uscc": [IDS[0].lower(), "no code"], "on": dt.date(2025, 1, 1), "kind": "unpaid"}),
        **changes,
    }
    folder.mkdir(exist_ok=True)
    for name, frame in tables.items():
        if frame is not None:
            frame.write_parquet(folder / f"{name}.parquet")
    return folder


def check(folder: Path, *options: str) -> int:
    return main(["catalog", "check", "electricity", str(folder), "--as-of", "2025-12-31", *options])


def test_list_names_every_shipped_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{path.stem} " in f"\n{out}" for path in FOLDER.glob("*.toml"))
    assert main(["catalog", "show", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in listed} == {path.stem for path in FOLDER.glob("*.toml")}
    assert all(entry["features"] and entry["tables"] for entry in listed)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_show_prints_every_table_column_and_feature(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show", name]) == 0
    out = capsys.readouterr().out
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    for table, about in raw["tables"].items():
        assert f"table {table} (" in out
        assert all(column in out and what["about"] in out for column, what in about["columns"].items())
    assert all(feature in out and what["about"] in out for feature, what in raw["features"].items())
    assert main(["catalog", "show", str(FOLDER / f"{name}.toml"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["features"]) == set(raw["features"])


@pytest.mark.parametrize(
    ("name", "text"),
    [("electricty", 'no catalogue "electricty"; did you mean "electricity"?'), ("none/x.toml", "no such file")],
    ids=["name", "file"],
)
def test_unknown_catalogue_is_one_line(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show", name]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_check_of_tables_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write(tmp_path / "raw")) == 0
    out = capsys.readouterr().out
    assert "The tables fit the catalogue." in out
    usage = next(line.split() for line in out.splitlines() if line.startswith("usage"))
    assert usage == ["usage", "monthly", "498", "20", "-", "-", "20", "-", "-", "24/24", "2"]
    breaches = next(line.split() for line in out.splitlines() if line.startswith("breaches"))
    assert breaches == ["breaches", "event", "2", "1", "1", "1", "-", "-", "-"]
    assert "absent, optional: accounts.name, accounts.address, accounts.state" in out


def test_check_prints_no_value_and_no_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "raw", breaches=pl.DataFrame({"uscc": IDS, "on": "no day", "kind": "unpaid"}))
    for options in ((), ("--json",)):
        assert check(folder, *options) == 2
        both = "".join(capsys.readouterr())
        assert not any(uscc in both for uscc in IDS)
        assert not any(text in both for text in ("no day", "unpaid,", "31337"))


def test_check_counts_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = pl.read_parquet(write(tmp_path / "good") / "usage.parquet")
    text = good.with_columns(
        pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("much")).otherwise(pl.col("kwh").cast(pl.String)).alias("kwh"),
        pl.when(pl.int_range(pl.len()) < 5).then(-1.0).otherwise(pl.col("bill")).alias("bill"),
        pl.when(pl.int_range(pl.len()) < 7).then(None).otherwise(pl.col("month")).alias("month"),
        pl.lit(1).alias("note"),
    )
    twice = pl.concat([text, text.tail(4)])
    folder = write(tmp_path / "raw", usage=twice, other=pl.DataFrame({"x": [1]}))
    assert check(folder, "--json") == 2
    streams = capsys.readouterr()
    assert "table 'usage': column 'kwh' has 3 values that are no number [catalog.check]" in streams.err
    found = json.loads(streams.out)
    assert found["unknown"] == ["other", "usage.note"]
    usage = next(table for table in found["tables"] if table["name"] == "usage")
    columns = {column["name"]: column for column in usage["columns"]}
    assert (columns["kwh"]["wrong"], columns["kwh"]["empty"]) == (3, 0)
    assert columns["bill"]["outside"] == 5
    assert (usage["undated"], columns["month"]["empty"]) == (7, 7)
    assert usage["repeats"] == 3  # the fourth is of the month after the as-of day
    assert usage["after"] == 21


def test_check_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accounts = pl.DataFrame({"uscc": IDS, "capacity": 1.0})
    folder = write(tmp_path / "raw", accounts=accounts, breaches=None)
    assert check(folder) == 2
    streams = capsys.readouterr()
    assert "missing, required: accounts.supplied_from, accounts.capacity_kva, breaches" in streams.out
    assert "unknown, not read: accounts.capacity" in streams.out
    assert "'accounts.supplied_from' is missing, and the catalogue requires it (and 2 more)" in streams.err
    assert streams.err.count("\n") == 1


def test_check_of_an_empty_table_and_of_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breaches = pl.DataFrame(schema={"uscc": pl.String, "on": pl.Date, "kind": pl.String})
    assert check(write(tmp_path / "raw", breaches=breaches)) == 0  # nobody has breached a contract
    capsys.readouterr()
    accounts = pl.DataFrame(schema={"uscc": pl.String, "supplied_from": pl.Date, "capacity_kva": pl.Float64})
    assert check(write(tmp_path / "raw", accounts=accounts)) == 2
    assert "table 'accounts': no row" in capsys.readouterr().err
    assert check(tmp_path / "nowhere") == 2
    assert "no such folder or file" in capsys.readouterr().err
    assert main(["catalog", "check", "electricity", str(tmp_path / "raw"), "--as-of", "31.12.2025"]) == 2
    assert '--as-of: found "31.12.2025"; write a day' in capsys.readouterr().err


def test_check_without_a_day_is_of_today(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "check", "electricity", str(write(tmp_path / "raw")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["as_of"] == dt.datetime.now(dt.UTC).date().isoformat()
