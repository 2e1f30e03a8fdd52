"""The same records give the same table from every format; types, missing values, categories and ids."""

from __future__ import annotations

import decimal
import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.data.formats import read_file
from fedcredit.data.load import SourceCache, load_table, load_tables
from fedcredit.data.sql import _series
from fedcredit.data.table import HolderTable
from fedcredit.errors import DataError
from fedcredit.spec.load import load_spec
from fedcredit.spec.model import PartySection

CSV = "id,y,a,s,c\n3,0,1.5,x,1\n1,1,NaN,y,2\n2,0,-2,,1\n"


def section(source: str, **keys: Any) -> PartySection:
    content = {"name": "bank", "role": "label_holder", "source": source, "label": "y", "categorical": ["c"], **keys}
    return PartySection.model_validate(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()))
    frame = pl.DataFrame(
        {"id": [3, 1, 2], "y": [0, 1, 0], "a": [1.5, float("nan"), -2], "s": ["x", "y", None], "c": [1.0, 2.0, 1.0]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    header = "% comment\n@RELATION r\n@attribute id numeric\n@attribute y {0,1}\n@attribute 'a' REAL\n"
    nominal = "@attribute s {x, 'y'}\n@attribute c integer\n@DATA\n"
    rows = "3,0,1.5,x,1\n% comment\n1,1,?,'y',2\n\n2, 0,-2,?,1\n"
    (tmp_path / "t.arff").write_text(header + nominal + rows)
    (tmp_path / "t.arff.gz").write_bytes(gzip.compress((header + nominal + rows).encode()))
    with closing(sqlite3.connect(tmp_path / "t.db")) as base:
        base.execute("create table t (id integer, y integer, a real, s text, c integer)")
        base.executemany(
            "insert into t values (?,?,?,?,?)", [(3, 0, 1.5, "x", 1), (1, 1, None, "y", 2), (2, 0, -2.0, "", 1)]
        )
        base.execute("create table mixed (id, y, a)")
        base.executemany("insert into mixed values (?,?,?)", [(1, 0, "one"), (2, 1, 2)])
        base.commit()
    return tmp_path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.arff", "t.arff.gz", "t.db"])
def test_formats_agree(folder: Path, name: str) -> None:
    party = section("sqlite:///t.db", query="select * from t") if name == "t.db" else section(name)
    table = load_table(party, folder)
    assert table.ids.to_list() == ["3", "1", "2"]
    assert table.label is not None
    assert table.label.tolist() == [0, 1, 0]
    assert {name: column.to_list() for name, column in table.columns.items()} == {
        "a": [1.5, None, -2.0],
        "s": ["x", "y", None],
        "c": ["1", "2", "1"],
    }
    assert [column.dtype for column in table.columns.values()] == [pl.Float64, pl.String, pl.String]
    assert table.digest == load_table(section("t.csv"), folder).digest


def test_label_is_read_only(folder: Path) -> None:
    label = load_table(section("t.csv"), folder).label
    assert label is not None
    with pytest.raises(ValueError, match="read-only"):
        label[0] = 1


def test_feature_holder_has_no_label(folder: Path) -> None:
    party = PartySection.model_validate({"name": "tax", "role": "feature_holder", "source": "t.csv", "columns": ["a"]})
    table = load_table(party, folder)
    assert table.label is None
    assert list(table.columns) == ["a"]


def test_columns_left_out_are_all_but_id_label_and_time(folder: Path) -> None:
    assert list(load_table(section("t.csv"), folder).columns) == ["a", "s", "c"]
    (folder / "when.csv").write_text("id,y,a,when\n1,0,1,2005\n2,1,2,2006\n")
    table = load_table(section("when.csv", categorical=[]), folder, time="when")
    assert list(table.columns) == ["a"]
    assert table.time is not None
    assert table.time.to_list() == [2005.0, 2006.0]


def test_row_number_as_id(folder: Path) -> None:
    assert load_table(section("t.csv", id="row_number"), folder).ids.to_list() == ["0", "1", "2"]
    (folder / "own.csv").write_text("row_number,y,a\n5,0,1\n6,1,2\n")
    assert load_table(section("own.csv", id="row_number", categorical=[]), folder).ids.to_list() == ["5", "6"]


def test_ids_keep_leading_zeros_of_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,y,a\n005, 0,1\n 5 ,1,2\n91370800MA3C4D5E6F,0,3\n")
    table = load_table(section("t.csv", categorical=[]), tmp_path)
    assert table.ids.to_list() == ["005", "5", "91370800MA3C4D5E6F"]


def test_categories_of_coded_numbers(tmp_path: Path) -> None:
    text = "id,y,whole,tenth,zip,words\n1,0,1.0,0.5,01,a\n2,1,2,1.5,1,7\n3,1,,2,02,b\n"
    (tmp_path / "t.csv").write_text(text)
    table = load_table(section("t.csv", categorical=["whole", "tenth", "zip", "words"]), tmp_path)
    assert table.columns["whole"].to_list() == ["1", "2", None]
    assert table.columns["tenth"].to_list() == ["0.5", "1.5", "2.0"]
    assert table.columns["zip"].to_list() == ["01", "1", "02"]
    assert table.columns["words"].to_list() == ["a", "7", "b"]


def test_special_codes_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,y,a\n1,0,-7\n2,1,3\n")
    assert load_table(section("t.csv", categorical=[], special={"a": [-7]}), tmp_path).columns["a"].to_list() == [
        -7.0,
        3.0,
    ]


def test_booleans_are_categories_in_every_format(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2], "y": [True, False], "b": [True, False]})
    frame.write_parquet(tmp_path / "t.parquet")
    table = load_table(section("t.parquet", categorical=[]), tmp_path)
    assert table.columns["b"].to_list() == ["true", "false"]
    assert table.label is not None
    assert table.label.tolist() == [1, 0]


def test_quoted_csv_fields(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,y,"a, b"\n1,0,"x, ""q""\nnext"\n2,1,z\n')
    table = load_table(section("t.csv", categorical=[]), tmp_path)
    assert table.columns["a, b"].to_list() == ['x, "q"\nnext', "z"]


def test_one_source_is_parsed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(path: Path, place: str) -> Any:
        reads.append(path.name)
        return read_file(path, place)

    monkeypatch.setattr("fedcredit.data.load.read_file", counted)
    (folder / "run.toml").write_text(
        '[run]\nname = "t"\nmode = "simulation"\n'
        '[[party]]\nname = "bank"\nrole = "label_holder"\nsource = "t.csv"\nlabel = "y"\ncolumns = ["a"]\n'
        '[[party]]\nname = "tax"\nrole = "feature_holder"\nsource = "t.csv"\ncolumns = ["s"]\n'
    )
    tables = load_tables(load_spec(folder / "run.toml"))
    assert list(tables) == ["bank", "tax"]
    assert reads == ["t.csv"]
    cache = SourceCache()
    load_table(section("t.csv"), folder, cache=cache)
    load_table(section("t.parquet"), folder, cache=cache)
    assert reads == ["t.csv", "t.csv", "t.parquet"]


def sql(folder: Path, source: str, query: str) -> HolderTable:
    return load_table(section(source, query=query, categorical=[]), folder)


@pytest.mark.parametrize(
    ("source", "query", "part"),
    [
        ("sqlite:///absent.db", "select 1", "no such file"),
        ("sqlite:///t.db", "select nothing from t", "the database refused (OperationalError)"),
        ("sqlite:///t.db", "select * from mixed", "'a' holds int and str"),
        ("sqlite:///t.db", "create table u (a)", "returns no rows"),
        ("sqlite:///t.db", "select id, y, a, a from t", "2 columns named 'a'"),
        ("sqlite:///t.db", "select id, y, a from t where 0", "no rows"),
        ("nodialect://x", "select 1", "no database URL"),
        ("mysql+pymysql://h/d", "select 1", "driver 'pymysql' is not installed"),
        ("sqlite:///${FEDCREDIT_NOWHERE}.db", "select 1", "FEDCREDIT_NOWHERE is not set"),
    ],
)
def test_bad_sql(folder: Path, source: str, query: str, part: str) -> None:
    with pytest.raises(DataError) as caught:
        sql(folder, source, query)
    assert part in caught.value.public
    assert "\n" not in str(caught.value)
    assert "select" not in caught.value.public.replace("write a select", "")
    assert not (folder / "absent.db").exists()


def test_sql_text_is_sent_as_it_is(folder: Path) -> None:
    table = sql(folder, "sqlite:///t.db", "select id, y, a, case when s like '%x%' then ':p' else '%s' end as k from t")
    assert table.columns["k"].to_list() == [":p", "%s", "%s"]


def test_sql_changes_nothing(folder: Path) -> None:
    query = "insert into t values (9, 0, 1.0, 'x', 1) returning id, y, a"
    with pytest.raises(DataError, match="one class only"):
        sql(folder, "sqlite:///t.db", query)
    assert sql(folder, "sqlite:///t.db", "select id, y, a from t").rows == 3


def test_url_in_one_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_DB", "sqlite:///t.db")
    assert sql(folder, "${BANK_DB}", "select id, y, a from t").rows == 3
    with pytest.raises(DataError, match="there is no query"):
        load_table(section("${BANK_DB}"), folder)


def test_password_never_stands_in_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hun@ter/2:%x"  # characters that would have to be escaped in a URL
    monkeypatch.setenv("DB_PASSWORD", secret)
    seen: list[Any] = []

    def refuse(url: Any, **_: Any) -> Any:
        seen.append(url.password)
        raise ModuleNotFoundError(name="psycopg")

    monkeypatch.setattr("sqlalchemy.create_engine", refuse)
    with pytest.raises(DataError) as caught:
        sql(folder, "postgresql+psycopg://u:${DB_PASSWORD}@h/d", "select 1")
    assert seen == [secret]
    assert "hun" not in repr(caught.value)
    assert "fedcredit[postgres]" in caught.value.public


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([decimal.Decimal(5), None], pl.Int64),
        ([decimal.Decimal("5.5"), 1], pl.Float64),
        ([decimal.Decimal("NaN"), decimal.Decimal(1)], pl.Float64),
        ([decimal.Decimal("Infinity"), decimal.Decimal(1)], pl.Float64),
        ([decimal.Decimal(10) ** 30], pl.Float64),
        ([True, None], pl.Boolean),
        ([1, 2.5], pl.Float64),
        ([], pl.Boolean),
        (["a", None], pl.String),
    ],
)
def test_types_of_a_driver(values: list[Any], dtype: Any) -> None:
    assert _series("c", values, "here").dtype == dtype
