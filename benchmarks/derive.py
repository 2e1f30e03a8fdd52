"""How long a holder's features take from raw tables, how that grows, and what reading the same tables alone takes.

usage: python benchmarks/derive.py [--quick] [--enterprises N …] [--source parquet sqlite postgres]

A tax office: taxpayers, 24 months of returns and 3 after the as-of day, grades, arrears; 20 features. Every case runs
in a process of its own, so that its peak memory is its own. "plain" reads every column and row of the same tables and
keeps nothing: Parquet into polars, SQLite through the standard library's cursor, PostgreSQL as COPY into nothing.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl
import sqlalchemy as sa

from benchmarks import postgres_server
from fedcredit.catalog.load import load_catalog
from fedcredit.data.derive import derive_source
from fedcredit.kernels.uscc import spell

CATALOG = Path(__file__).resolve().parents[1] / "configs" / "catalog" / "tax_office.toml"
AS_OF = dt.date(2025, 12, 31)
MONTHS = 27
TABLES = ("taxpayers", "returns", "grades", "arrears")
SLICE = 100_000


def tables(enterprises: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Tables piece by piece; the returns month after month, as a register grows."""
    rng = np.random.default_rng(1)
    ids = spell(rng.integers(0, 31, (enterprises, 17)).astype(np.uint8)).alias("uscc")
    n = enterprises

    def day(first: str, spread: int, rows: int) -> pl.Series:
        start = dt.date.fromisoformat(first)
        return (pl.Series(rng.integers(0, spread, rows)).cast(pl.Int32) + (start - dt.date(1970, 1, 1)).days).cast(
            pl.Date
        )

    def text(days: pl.Series) -> pl.Series:
        return days.dt.to_string("%Y-%m-%d")

    yield "taxpayers", pl.DataFrame(
        {"uscc": ids, "name": "x", "registered_on": text(day("2005-01-01", 7000, n)),
         "industry": rng.choice(list("ABCDE"), n), "vat_kind": rng.choice(["general", "small"], n)}
    )  # fmt: skip
    level = rng.lognormal(11, 1, n)
    for k in range(MONTHS):
        month = dt.date(2024 + k // 12, k % 12 + 1, 1)
        sales = np.round(level * rng.lognormal(0, 0.3, n), 2)
        paid = text(day((month + dt.timedelta(days=35)).isoformat(), 40, n))
        here = rng.random(n) < 0.97
        yield "returns", pl.DataFrame(
            {"uscc": ids, "month": month.isoformat(), "vat_sales": sales, "tax_due": np.round(sales * 0.03, 2),
             "tax_paid": np.round(sales * 0.03, 2), "paid_on": paid, "buyers": rng.integers(1, 99, n),
             "sellers": rng.integers(1, 50, n), "top_buyer_share": np.round(rng.random(n), 4), "export_rebate": 0.0}
        ).filter(pl.Series(here))  # fmt: skip
    yield (
        "grades",
        pl.DataFrame({"uscc": ids, "year": 2024, "graded_on": "2025-04-30", "grade": rng.choice(list("ABMCD"), n)}),
    )
    some = ids.head(n // 20)
    yield (
        "arrears",
        pl.DataFrame(
            {"uscc": some, "since": text(day("2024-01-01", 700, len(some))), "cleared_on": "2026-02-01", "amount": 9.5}
        ),
    )


def write_parquet(folder: Path, enterprises: int) -> None:
    parts: dict[str, list[pl.DataFrame]] = {}
    for name, frame in tables(enterprises):
        parts.setdefault(name, []).append(frame)
    for name, frames in parts.items():
        pl.concat(frames).write_parquet(folder / f"{name}.parquet")


def columns_of(frame: pl.DataFrame, number: str) -> str:
    return ", ".join(f'"{c}" {number if frame[c].dtype.is_numeric() else "TEXT"}' for c in frame.columns)


def write_sqlite(path: Path, folder: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = off")
        for name in TABLES:
            frame = pl.read_parquet(folder / f"{name}.parquet")
            connection.execute(f"CREATE TABLE {name} ({columns_of(frame, 'REAL')})")
            insert = f"INSERT INTO {name} VALUES ({', '.join('?' * frame.width)})"
            for piece in frame.iter_slices(SLICE):
                connection.executemany(insert, piece.iter_rows())
    connection.close()


def write_postgres(url: str, folder: Path) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        for name in TABLES:
            frame = pl.read_parquet(folder / f"{name}.parquet")
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
            connection.exec_driver_sql(f"CREATE TABLE {name} ({columns_of(frame, 'DOUBLE PRECISION')})")
            with driver.cursor().copy(f"COPY {name} FROM STDIN (FORMAT csv)") as copy:
                for piece in frame.iter_slices(SLICE):
                    copy.write(piece.write_csv(include_header=False))
    engine.dispose()


def plain(source: str) -> int:
    """Read everything and keep nothing; returns rows."""
    if source.startswith("postgresql"):
        engine, blocks = sa.create_engine(source), 0
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            for name in TABLES:
                with driver.cursor().copy(f"COPY {name} TO STDOUT (FORMAT csv)") as copy:
                    blocks += sum(bytes(block).count(b"\n") for block in copy)
        engine.dispose()
        return blocks
    if Path(source).is_dir():
        return sum(pl.read_parquet(Path(source) / f"{name}.parquet").height for name in TABLES)
    lite, rows = sqlite3.connect(source), 0
    for name in TABLES:
        cursor = lite.execute(f"SELECT * FROM {name}")
        while batch := cursor.fetchmany(50_000):
            rows += len(batch)
    lite.close()
    return rows


def one(what: str, source: str) -> dict[str, float]:
    """One measurement in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "plain":
        size = plain(source)
    else:
        size = len(derive_source(load_catalog(CATALOG), source, Path(), AS_OF, label=False, place="benchmark").ids)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak, "size": size}


def apart(what: str, source: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", what, "--place", source]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(enterprises: int, kinds: list[str], folder: Path, url: str | None) -> None:
    raw = folder / str(enterprises)
    raw.mkdir()
    write_parquet(raw, enterprises)
    places = {"parquet": str(raw)}
    if "sqlite" in kinds:
        places["sqlite"] = str(folder / f"{enterprises}.sqlite")
        write_sqlite(Path(places["sqlite"]), raw)
    if url is not None:
        places["postgres"] = url
        write_postgres(url, raw)
    for kind in kinds:
        if kind not in places:
            print(f"{enterprises:>9,} {kind:9} no server here")
            continue
        base, full = apart("plain", places[kind]), apart("derive", places[kind])
        print(
            f"{enterprises:>9,} {kind:9} {base['size']:>10,} {base['wall']:8.1f} {full['wall']:9.1f} {full['cpu']:8.1f}"
            f" {full['wall'] / base['wall']:8.1f} {full['peak']:9.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--enterprises", type=int, nargs="*")
    parser.add_argument("--source", nargs="*", default=["parquet", "sqlite", "postgres"])
    parser.add_argument("--one")
    parser.add_argument("--place", default="")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.place)))
        return
    sizes = arguments.enterprises or ([5_000] if arguments.quick else [21_000, 70_000, 210_000])
    heads = ("enterprises", "source", "rows", "plain s", "derive s", "CPU s", "x plain", "peak MB")
    print("{:>9} {:9} {:>10} {:>8} {:>9} {:>8} {:>8} {:>9}".format(*heads))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        programs = postgres_server.find_server() if "postgres" in arguments.source else None
        url = stack.enter_context(postgres_server.server(programs)) if programs else None
        for size in sizes:
            measure(size, arguments.source, folder, url)


if __name__ == "__main__":
    main()
