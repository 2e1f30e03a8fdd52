"""The same raw tables in Parquet, CSV, SQLite and PostgreSQL give the same features, bit for bit."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import sqlalchemy as sa
from polars.testing import assert_frame_equal

from fedcredit.catalog.derive import Derived
from fedcredit.catalog.load import load_catalog
from fedcredit.data.derive import derive_source
from fedcredit.data.derive_check import check_source
from fedcredit.data.district import DistrictSettings, build_district
from fedcredit.errors import DataError

if TYPE_CHECKING:
    from benchmarks import postgres_server
else:
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import postgres_server

FOLDER = Path(__file__).parents[2] / "configs" / "catalog"
AS_OF = dt.date(2025, 12, 31)
HOLDERS = {"bank": "bank_1.sqlite", "electricity": "electricity", "market_regulation": "market_regulation.sqlite"}

SQL_TYPES = {"number": "DOUBLE PRECISION", "flag": "BOOLEAN", "date": "DATE"}


@dataclass(frozen=True)
class District:
    """Sources of three holders: as made, and their tables as text, number and date columns."""

    folder: Path
    tables: dict[str, dict[str, pl.DataFrame]]


@pytest.fixture(scope="module")
def district(tmp_path_factory: pytest.TempPathFactory) -> District:
    folder = tmp_path_factory.mktemp("district")
    build_district(DistrictSettings(enterprises=600, seed=5), folder)
    return District(folder, {holder: _read(folder / source) for holder, source in HOLDERS.items()})


def _read(place: Path) -> dict[str, pl.DataFrame]:
    if place.is_dir():
        return {path.stem: pl.read_parquet(path) for path in place.glob("*.parquet")}
    connection = sqlite3.connect(place)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for name in names:
            cursor = connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid')
            columns = [column[0] for column in cursor.description]
            found[name] = pl.DataFrame(cursor.fetchall(), schema=columns, orient="row", infer_schema_length=None)
        return found
    finally:
        connection.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    programs = postgres_server.find_server()
    if programs is None:
        pytest.skip(
            "NO POSTGRESQL SERVER HERE: initdb is neither on the path nor in /usr/lib/postgresql (apt: postgresql)"
        )
    with postgres_server.server(programs) as url:
        yield url


def derived(holder: str, source: str, base: Path) -> Derived:
    catalog = load_catalog(FOLDER / f"{holder}.toml")
    return derive_source(catalog, source, base, AS_OF, label=holder == "bank", place="test")


def frame_of(found: Derived) -> pl.DataFrame:
    label = [] if found.label is None else [found.label]
    return pl.DataFrame([found.ids, *label, *(column.alias(name) for name, column in found.columns.items())])


def fill(url: str, holder: str, tables: dict[str, pl.DataFrame], *, typed: bool) -> None:
    """Write tables into a database: with types of their own, or everything that is not a number as text."""
    catalog = load_catalog(FOLDER / f"{holder}.toml")
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            for name, frame in tables.items():
                about = catalog.tables[name].columns
                kinds = [
                    SQL_TYPES.get(about[column].type, "TEXT") if typed or frame[column].dtype.is_numeric() else "TEXT"
                    for column in frame.columns
                ]
                if not typed:
                    kinds = [kind.replace("BOOLEAN", "INTEGER") for kind in kinds]
                spelt = ", ".join(f'"{c}" {kind}' for c, kind in zip(frame.columns, kinds, strict=True))
                connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
                connection.exec_driver_sql(f'CREATE TABLE "{name}" ({spelt})')
                rows = [
                    tuple(
                        bool(v) if kind == "BOOLEAN" and v is not None else v
                        for v, kind in zip(row, kinds, strict=True)
                    )
                    for row in frame.rows()
                ]
                marks = ", ".join(["%s" if url.startswith("postgresql") else "?"] * len(kinds))
                connection.exec_driver_sql(f'INSERT INTO "{name}" VALUES ({marks})', rows)
    finally:
        engine.dispose()


@pytest.mark.parametrize("holder", sorted(HOLDERS))
def test_files_of_every_format_agree(district: District, holder: str, tmp_path: Path) -> None:
    right = derived(holder, HOLDERS[holder], district.folder)
    assert right.ids.len() > 50
    for kind in ("parquet", "csv"):
        folder = tmp_path / kind
        folder.mkdir()
        for name, frame in district.tables[holder].items():
            if kind == "parquet":
                frame.write_parquet(folder / f"{name}.parquet")
            else:
                frame.write_csv(folder / f"{name}.csv")
        found = derived(holder, str(folder), Path())
        assert_frame_equal(frame_of(found), frame_of(right), check_exact=True)
        assert found.dropped == right.dropped
    url = f"sqlite:///{tmp_path}/typed.sqlite"
    (tmp_path / "typed.sqlite").touch()
    fill(url, holder, district.tables[holder], typed=True)
    assert_frame_equal(frame_of(derived(holder, url, Path())), frame_of(right), check_exact=True)


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "text"])
@pytest.mark.parametrize("holder", sorted(HOLDERS))
def test_postgres_agrees(district: District, postgres: str, holder: str, typed: bool) -> None:
    fill(postgres, holder, district.tables[holder], typed=typed)
    right = derived(holder, HOLDERS[holder], district.folder)
    found = derived(holder, postgres, Path())
    assert_frame_equal(frame_of(found), frame_of(right), check_exact=True)
    assert (found.dropped, found.merged) == (right.dropped, right.merged)
    catalog = load_catalog(FOLDER / f"{holder}.toml")
    checks = [check_source(catalog, source, district.folder, AS_OF, "test") for source in (postgres, HOLDERS[holder])]
    assert checks[0].tables == checks[1].tables
    assert checks[0].errors == checks[1].errors == ()


def test_postgres_text_with_quotes_and_line_breaks_stays_in_its_row(postgres: str, tmp_path: Path) -> None:
    names = ['a "quoted", name', "two\nlines", "", None, "plain", "\\N", "tab\there"]
    table = pl.DataFrame(
        {"uscc": [f"id{i}" for i in range(len(names))], "opened_on": "2020-01-01", "class": names, "x": 1.5}
    )
    text = """
        format = 1
        holder = "h"
        title = "t"
        about = "a"
        ids = "text"
        rows = "odd"
        [tables.odd]
        about = "a"
        period = "static"
        time = "opened_on"
        duplicates = "error"
        [tables.odd.columns]
        uscc = { type = "id", about = "a" }
        opened_on = { type = "date", about = "a" }
        class = { type = "category", about = "a" }
        x = { type = "number", about = "a" }
        [features.class]
        kind = "value"
        table = "odd"
        column = "class"
        about = "a"
        reason = "a"
        """
    (tmp_path / "odd.toml").write_text(text)
    catalog = load_catalog(tmp_path / "odd.toml")
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS odd")
        connection.exec_driver_sql("CREATE TABLE odd (uscc TEXT, opened_on DATE, class TEXT, x NUMERIC)")
        connection.exec_driver_sql("INSERT INTO odd VALUES (%s, %s, %s, %s)", table.rows())
    engine.dispose()
    found = derive_source(catalog, postgres, Path(), AS_OF, label=False, place="test")
    right = [name.strip() if name else None for name in names]
    assert dict(zip(found.ids, found.columns["class"], strict=True)) == {f"id{i}": name for i, name in enumerate(right)}


def test_postgres_text_that_is_no_date_is_refused(district: District, postgres: str) -> None:
    tables = district.tables["electricity"]
    usage = tables["usage"].with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("31.12.2025")).otherwise(pl.col("month")).alias("month")
    )
    fill(postgres, "electricity", {**tables, "usage": usage}, typed=False)
    with pytest.raises(DataError, match="table 'usage': column 'month' has 5 values that are no date"):
        derived("electricity", postgres, Path())


def test_postgres_refusals_say_no_secret(postgres: str) -> None:
    catalog = load_catalog(FOLDER / "bank.toml")
    wrong = postgres.replace("fedcredit@", "nobody-secret@")
    with pytest.raises(DataError) as caught:
        derive_source(catalog, wrong, Path(), AS_OF, label=False, place="party a")
    assert caught.value.code == "data.sql"
    assert "secret" not in str(caught.value)
    assert "party a: the database refused" in str(caught.value)
