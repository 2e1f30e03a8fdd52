"""A party whose configuration names a catalogue: columns, label, data version, and what is refused."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.catalog.derive import Dropped, as_of_day
from fedcredit.catalog.load import load_catalog
from fedcredit.data.derive import derive_source
from fedcredit.data.load import load_table
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.uscc import spell
from fedcredit.spec.model import PartySection

IDS = spell(np.random.default_rng(1).integers(0, 31, (12, 17)).astype(np.uint8)).to_list()

CATALOG = """
format = 1
holder = "lender"
title = "Lender"
about = "x"
rows = "customers"

[tables.customers]
about = "x"
period = "static"
time = "opened_on"
duplicates = "last"
[tables.customers.columns]
uscc = { type = "id", about = "x" }
opened_on = { type = "date", about = "x" }
kind = { type = "category", about = "x" }
nick = { type = "category", about = "x", required = false }

[tables.flows]
about = "x"
period = "monthly"
time = "month"
duplicates = "last"
[tables.flows.columns]
uscc = { type = "id", about = "x" }
month = { type = "date", about = "x" }
amount = { type = "number", about = "x" }

[tables.extra]
about = "x"
period = "event"
time = "on"
duplicates = "last"
required = false
[tables.extra.columns]
uscc = { type = "id", about = "x" }
on = { type = "date", about = "x" }

[tables.loans]
about = "x"
period = "event"
time = "granted_on"
duplicates = "last"
[tables.loans.columns]
uscc = { type = "id", about = "x" }
granted_on = { type = "date", about = "x" }
term = { type = "number", about = "x" }

[tables.defaults]
about = "x"
period = "event"
time = "on"
duplicates = "last"
[tables.defaults.columns]
uscc = { type = "id", about = "x" }
on = { type = "date", about = "x", label_only = true }

[label]
name = "bad"
table = "defaults"
column = "on"
horizon_months = 12
population = "loans"
about = "x"

[features.level]
kind = "level"
table = "flows"
column = "amount"
months = 3
about = "x"
reason = "x"
[features.kind]
kind = "value"
table = "customers"
column = "kind"
about = "x"
reason = "x"
[features.nick]
kind = "value"
table = "customers"
column = "nick"
about = "x"
reason = "x"
[features.extras]
kind = "count"
table = "extra"
about = "x"
reason = "x"
[features.loans]
kind = "count"
table = "loans"
about = "x"
reason = "x"
"""

Tables = dict[str, pl.DataFrame]


def make_tables() -> Tables:
    """Twelve enterprises; a third of the ids of flows in another spelling, one invalid."""
    spelt = [
        text.lower() if i % 3 == 0 else f" {text[:4]}-{text[4:]}" if i % 3 == 1 else text for i, text in enumerate(IDS)
    ]
    flows = [
        {"uscc": uscc, "month": f"2025-{month:02d}-01", "amount": float(10 * i + month)}
        for i, uscc in enumerate(spelt)
        for month in (10, 11, 12)
    ]
    return {
        "customers": pl.DataFrame({"uscc": IDS, "opened_on": "2020-01-01", "kind": ["a", "b", "c"] * 4}),
        "flows": pl.DataFrame(flows),
        "loans": pl.DataFrame({"uscc": IDS[:10], "granted_on": ["2025-01-01"] * 9 + ["2026-01-05"], "term": 12.0}),
        "defaults": pl.DataFrame(
            {"uscc": [IDS[0], IDS[1].lower(), IDS[2], IDS[3], IDS[11]],
             "on": ["2025-12-31", "2026-01-01", "2026-12-31", "2027-01-01", "2026-02-02"]}
        ),
    }  # fmt: skip


def write(folder: Path, tables: Mapping[str, pl.DataFrame], catalog: str = CATALOG) -> None:
    (folder / "catalog.toml").write_text(catalog)
    (folder / "raw").mkdir(exist_ok=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / "raw" / f"{name}.parquet")


def party(**keys: Any) -> PartySection:
    given = {
        "name": "lender", "role": "label_holder", "source": "raw", "catalog": "catalog.toml", "as_of": "2025-12-31",
        "label": "bad", **keys,
    }  # fmt: skip
    return PartySection.model_validate(given)


def load(folder: Path, tables: Tables | None = None, **keys: Any) -> HolderTable:
    write(folder, make_tables() if tables is None else tables)
    return load_table(party(**keys), folder)


def refused(folder: Path, tables: Tables | None = None, **keys: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(folder, tables, **keys)
    assert str(caught.value).startswith("party lender: ")
    assert not any(uscc in str(caught.value) for uscc in IDS)
    return caught.value


def test_label_is_a_default_within_the_horizon(tmp_path: Path) -> None:
    table = load(tmp_path, columns=("level", "kind"))
    # in default on the as-of day: no row; granted after it: no row; without a loan: no row
    assert sorted(table.ids) == sorted(IDS[1:9])
    assert table.label is not None
    assert dict(zip(table.ids, table.label.tolist(), strict=True)) == {
        uscc: int(uscc in (IDS[1], IDS[2])) for uscc in IDS[1:9]
    }
    assert set(table.columns) == {"level", "kind"}
    values = dict(zip(table.ids, table.columns["level"], strict=True))
    assert values == {uscc: 10.0 * i + 11 for i, uscc in enumerate(IDS) if 1 <= i < 9}


def test_feature_holder_sees_no_label_and_every_customer(tmp_path: Path) -> None:
    table = load(tmp_path, role="feature_holder", label=None, columns=("level",))
    assert table.label is None
    assert sorted(table.ids) == sorted(IDS)
    assert "bad" not in table.columns


def test_data_version_is_of_all_features_not_of_the_selection(tmp_path: Path) -> None:
    one, two = load(tmp_path, columns=("level",)), load(tmp_path, columns=("kind", "level"))
    assert one.digest == two.digest
    tables = make_tables()
    tables["customers"] = tables["customers"].with_columns(kind=pl.Series(["b", "b", "c"] * 4))
    assert load(tmp_path, tables, columns=("level",)).digest != one.digest


def test_data_version_does_not_know_order_nor_rows_after_the_as_of_day(tmp_path: Path) -> None:
    right = load(tmp_path, columns=("level",)).digest
    tables = {name: frame.reverse() for name, frame in make_tables().items()}
    late = pl.DataFrame({"uscc": IDS, "month": "2026-01-01", "amount": 1e9})
    tables["flows"] = pl.concat([late, tables["flows"]])
    assert load(tmp_path, tables, columns=("level",)).digest == right


def test_keys_about_columns_go_on_working(tmp_path: Path) -> None:
    table = load(tmp_path, columns=("level", "loans"), special={"level": (51.0,)}, monotone={"level": "decreasing"},
                 tables={**make_tables(), "loans": two_loans()}, categorical=("loans",))  # fmt: skip
    assert table.columns["loans"].dtype == pl.String
    error = refused(tmp_path, columns=("level",), special={"lvl": (51.0,)}, monotone={})
    assert error.code == "data.unknown-column"


def two_loans() -> pl.DataFrame:
    loans = make_tables()["loans"]
    return pl.concat([loans, loans.head(5).with_columns(granted_on=pl.lit("2025-02-02"))])


def test_features_of_absent_optional_tables_and_columns_are_left_out(tmp_path: Path) -> None:
    tables = {**make_tables(), "loans": two_loans()}
    assert set(load(tmp_path, tables).columns) == {"level", "kind", "loans"}
    tables["extra"] = pl.DataFrame({"uscc": IDS[2:5], "on": "2025-03-03"})
    tables["customers"] = tables["customers"].with_columns(nick=pl.Series(["x", "y"] * 6))
    assert set(load(tmp_path, tables).columns) == {"level", "kind", "loans", "extras", "nick"}


def test_absent_optional_feature_that_is_asked_for_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, columns=("nick",))
    assert error.code == "data.unknown-column"
    assert "'nick'" in str(error)


def test_two_spellings_of_one_enterprise_are_one(tmp_path: Path) -> None:
    tables = make_tables()
    again = (
        tables["flows"].filter(pl.col("month") == "2025-12-01").with_columns(uscc=pl.Series(IDS), amount=pl.lit(1e6))
    )
    table = load(tmp_path, {**tables, "flows": pl.concat([tables["flows"], again])}, columns=("level",))
    assert table.columns["level"].min() > 1e5  # type: ignore[operator]


def test_rows_with_an_invalid_id_are_dropped(tmp_path: Path) -> None:
    tables = make_tables()
    wrong = IDS[5][:-1] + ("0" if IDS[5][-1] != "0" else "1")
    customers = tables["customers"].with_columns(uscc=pl.Series([*IDS[:5], wrong, *IDS[6:11], "no code"]))
    table = load(tmp_path, {**tables, "customers": customers}, role="feature_holder", label=None, columns=("level",))
    assert sorted(table.ids) == sorted({*IDS} - {IDS[5], IDS[11]})


def test_ids_as_text_are_taken_as_they_stand(tmp_path: Path) -> None:
    tables = make_tables()
    names = {uscc: f"firm {i}" for i, uscc in enumerate(IDS)}
    tables = {n: f.with_columns(uscc=pl.col("uscc").replace(names)) for n, f in tables.items()}
    write(tmp_path, tables, CATALOG.replace('rows = "customers"', 'rows = "customers"\nids = "text"'))
    table = load_table(party(role="feature_holder", label=None, columns=("kind",)), tmp_path)
    assert sorted(table.ids) == sorted(names.values())


@pytest.mark.parametrize(
    ("keys", "code", "text"),
    [
        ({"label": "default"}, "data.unknown-column", "no column 'default'"),
        ({"columns": ("levle",)}, "data.unknown-column", 'did you mean "level"?'),
        ({"source": "nowhere"}, "data.no-file", "no such folder or file"),
        ({"source": "catalog.toml"}, "data.format", "holds no raw tables"),
        ({"source": "sqlite:///none.sqlite"}, "data.no-file", "no such file"),
        ({"source": "${FEDCREDIT_NOT_SET}"}, "data.environment", "FEDCREDIT_NOT_SET"),
        ({"id": "level", "label": "bad"}, "data.columns", '"level" is a feature of the catalogue'),
    ],
    ids=["label", "column", "place", "file", "database", "variable", "id"],
)
def test_configuration_that_does_not_fit(tmp_path: Path, keys: dict[str, Any], code: str, text: str) -> None:
    error = refused(tmp_path, **keys)
    assert error.code == code
    assert text in str(error)


def test_as_of_must_be_a_day() -> None:
    with pytest.raises(DataError, match="a day of the calendar"):
        as_of_day("2025-02-30", "party lender")


def test_wrong_catalogue_is_a_configuration_error(tmp_path: Path) -> None:
    write(tmp_path, make_tables(), CATALOG.replace("months = 3", "months = 3\nlead = 1"))
    with pytest.raises(SpecError) as caught:
        load_table(party(), tmp_path)
    assert caught.value.code == "catalog.future"


def altered(table: str, **columns: Any) -> Tables:
    tables = make_tables()
    tables[table] = tables[table].with_columns(**columns)
    return tables


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
@pytest.mark.parametrize(
    ("tables", "code", "text"),
    [
        (altered("flows", amount=pl.lit("much")), "catalog.type", "column 'amount' has 36 values that are no number"),
        (altered("flows", month=pl.lit("31.12.2025")), "catalog.type", "column 'month' has 36 values that are no date"),
        ({k: v for k, v in make_tables().items() if k != "flows"}, "catalog.no-table", "no table 'flows'"),
        (altered("flows") | {"flows": make_tables()["flows"].drop("amount")}, "catalog.no-column", "'amount'"),
        (altered("customers", uscc=pl.lit("?")), "data.empty", "no enterprise is left"),
        (altered("customers", opened_on=pl.lit("2026-01-01")), "data.empty", "no enterprise is left"),
    ],
    ids=["number", "date", "table", "column", "ids", "future"],
)
def test_tables_that_do_not_fit(tmp_path: Path, tables: Tables, code: str, text: str, kind: str) -> None:
    if kind == "sqlite":
        with sqlite3.connect(tmp_path / "raw.sqlite") as connection:
            for name, frame in tables.items():
                columns = ", ".join(f'"{column}"' for column in frame.columns)
                connection.execute(f"CREATE TABLE {name} ({columns})")
                connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * frame.width)})", frame.rows())
        connection.close()
    error = refused(tmp_path, tables, source="raw.sqlite" if kind == "sqlite" else "raw")
    assert error.code == code
    assert text in str(error)


def test_duplicates_that_are_errors_are_refused_and_counted(tmp_path: Path) -> None:
    tables = make_tables()
    tables["flows"] = pl.concat([tables["flows"], tables["flows"].head(2)])
    write(
        tmp_path, tables, CATALOG.replace('time = "month"\nduplicates = "last"', 'time = "month"\nduplicates = "error"')
    )
    with pytest.raises(DataError, match="table 'flows': 2 rows repeat an enterprise") as caught:
        load_table(party(columns=("level",)), tmp_path)
    assert caught.value.code == "catalog.duplicates"


def test_loans_that_have_run_out_leave_the_population(tmp_path: Path) -> None:
    write(tmp_path, make_tables(), CATALOG.replace('population = "loans"', 'population = "loans"\nrunning = "term"'))
    assert load_table(party(columns=("level",)), tmp_path).rows == 8  # granted on 1 January 2025 for 12 months
    tables = altered("loans", term=pl.Series([11.0] * 4 + [12.0] * 6))
    write(tmp_path, tables, CATALOG.replace('population = "loans"', 'population = "loans"\nrunning = "term"'))
    with pytest.raises(DataError, match="one class only"):
        load_table(party(columns=("level",)), tmp_path)


def test_dropped_rows_are_counted_by_table(tmp_path: Path) -> None:
    tables = make_tables()
    blank = pl.DataFrame({"uscc": [None, "", "no code", "no code"], "month": "2025-12-01", "amount": 1.0})
    late = pl.DataFrame({"uscc": ["other code"], "month": "2026-01-01", "amount": 1.0})
    write(tmp_path, {**tables, "flows": pl.concat([tables["flows"], blank, late])})
    catalog = load_catalog(tmp_path / "catalog.toml")
    as_of = dt.date(2025, 12, 31)
    found = derive_source(catalog, str(tmp_path / "raw"), Path(), as_of, label=False, place="x")
    assert found.dropped["flows"] == Dropped(rows=4, ids=1)
    assert found.dropped["customers"] == Dropped(rows=0, ids=0)
    assert found.merged == 8
