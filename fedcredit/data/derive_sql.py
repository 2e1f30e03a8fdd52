"""Raw tables in a database: only the columns and rows that are wanted, in batches straight into typed columns.

SQLite and PostgreSQL (with psycopg) are read through their own drivers' fast paths, anything else through SQLAlchemy.
Neither URL nor server text is ever repeated: both may hold secrets.
"""

from __future__ import annotations

import decimal
import io
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import polars as pl
import sqlalchemy as sa

from fedcredit.catalog.model import Table
from fedcredit.data.derive_rows import Bounds, Convert
from fedcredit.data.sql import engine_of
from fedcredit.errors import DataError

__all__ = ["SqlTables"]

_BATCH = 50_000  # rows
_BLOCK = 8 << 20  # bytes of a server's answer that are parsed at a time
_GLOB = "[12][0-9][0-9][0-9]-[01][0-9]*"
_REGEX = "^[12][0-9]{3}-[01][0-9]"

_IN_ORDER = (
    # a plain scan by one process gives rows in the order in which they are stored
    "SET LOCAL synchronize_seqscans = off",
    "SET LOCAL max_parallel_workers_per_gather = 0",
    "SET LOCAL enable_indexscan = off",
    "SET LOCAL enable_indexonlyscan = off",
    "SET LOCAL enable_bitmapscan = off",
)


class SqlTables:
    """The tables of one database, read in one transaction; use as a context manager.

    Args:
        source: SQLAlchemy URL, as of ``engine_of``.
        base: Folder that a relative SQLite file is relative to.
        place: Named in errors.

    Raises:
        DataError: bad URL, missing driver, failed connection or query.
    """

    def __init__(self, source: str, base: Path, place: str) -> None:
        self._place = place
        self._engine = engine_of(source, base, place)
        self._connection: sa.Connection | None = None
        self._dates: set[tuple[str, str]] = set()  # table and column of those that the database knows to be dates

    def __enter__(self) -> Self:
        with self._explained():
            connection = self._engine.connect()
            if self._engine.dialect.name == "postgresql":
                # all tables as of one moment
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                for setting in _IN_ORDER:
                    connection.exec_driver_sql(setting)
            self._connection = connection
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def columns(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Columns of those tables (or views) that the database has; every other table with none named."""
        with self._explained():
            inspector = sa.inspect(self._open)
            there = [*inspector.get_table_names(), *inspector.get_view_names()]
            found = {name: inspector.get_columns(name) if name in names else [] for name in there}
        for name, columns in found.items():
            self._dates |= {(name, c["name"]) for c in columns if isinstance(c["type"], (sa.Date, sa.DateTime))}
        return {name: tuple(column["name"] for column in columns) for name, columns in found.items()}

    def read(self, name: str, about: Table, columns: Sequence[str], bounds: Bounds, convert: Convert) -> pl.LazyFrame:
        """Some columns of a table, rows in the order of the source.

        Args:
            name: Of the table.
            about: What the catalogue says of it.
            columns: Which, in this order.
            bounds: Days between which rows are wanted.
            convert: Applied to each batch.
        """
        query = self._query(name, about, columns, bounds)
        with self._explained():
            batches = [convert(batch) for batch in self._batches(query, columns)]
        empty = convert(pl.DataFrame(schema=dict.fromkeys(columns, pl.String)))
        return pl.concat([empty, *batches], how="vertical_relaxed").lazy()

    @property
    def _open(self) -> sa.Connection:
        if self._connection is None:
            raise DataError("data.sql", f"{self._place}: the database is not open")
        return self._connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        # the driver's text may repeat the URL, the query or a value of a row
        driver: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        try:
            yield
        except (sa.exc.SQLAlchemyError, driver) as error:
            state = getattr(getattr(error, "orig", error), "sqlstate", None)
            right = f"{self._place}: the database refused ({type(error).__name__}); check URL, server and rights"
            raise DataError("data.sql", right, f"SQLSTATE {state}" if state else "") from None

    def _query(self, name: str, about: Table, columns: Sequence[str], bounds: Bounds) -> str:
        quote = self._engine.dialect.identifier_preparer.quote
        shown = ", ".join(quote(column) for column in columns)
        query = f"SELECT {shown} FROM {quote(name)}"  # noqa: S608 -- names of the catalogue, quoted; days as ISO text
        lite = self._engine.dialect.name == "sqlite"
        odd = self._odd_dates(name, about.time)
        if about.time is not None and odd is not None and not bounds.open:
            time = quote(about.time)
            undated = f" OR {time} IS NULL" if about.period == "static" else ""
            query += f" WHERE ({bounds.condition(time)}){odd}{undated}"
        if lite and self._has_rowid(name):
            query += " ORDER BY rowid"
        return query

    def _odd_dates(self, name: str, time: str | None) -> str | None:
        """Dates that are not ISO text sort anywhere: condition by which they arrive, to be refused; None = all must."""
        if time is None or ((name, time) in self._dates and self._engine.dialect.name != "sqlite"):
            return ""
        quoted = self._engine.dialect.identifier_preparer.quote(time)
        return {"sqlite": f" OR {quoted} NOT GLOB '{_GLOB}'", "postgresql": f" OR {quoted} !~ '{_REGEX}'"}.get(
            self._engine.dialect.name
        )

    def _has_rowid(self, name: str) -> bool:
        """Whether the order of insertion is kept: not by a view, nor by a table ``WITHOUT ROWID``."""
        found = self._open.execute(
            sa.text("SELECT type, sql FROM sqlite_master WHERE name = :name"), {"name": name}
        ).one_or_none()
        return found is not None and found[0] == "table" and "WITHOUT ROWID" not in str(found[1]).upper()

    def _batches(self, query: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        driver: Any = self._open.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            cursor = driver.execute(query)
            while rows := cursor.fetchmany(_BATCH):
                yield _frame(columns, rows)
        elif type(driver).__module__.split(".")[0] == "psycopg":
            with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)") as copy:
                yield from _csv(copy, columns)
        else:
            streamed = self._open.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(query)
            for part in streamed.partitions(_BATCH):
                yield _frame(columns, part)


def _frame(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    values = zip(*rows, strict=True)
    return pl.DataFrame([_series(name, column) for name, column in zip(columns, values, strict=True)])


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    """A column as the driver gives it; numbers mixed with text become text, which the catalogue's types then judge."""
    try:
        series = pl.Series(name, values)
    except (TypeError, pl.exceptions.PolarsError):
        kinds = {type(value) for value in values} - {type(None)}
        if kinds <= {int, float, bool, decimal.Decimal}:
            return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    if series.dtype in (pl.Object, pl.Binary):
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    return series


def _csv(blocks: Any, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Batches of text columns from the blocks of a CSV that has no header."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(bytes(block))
        size += len(block)
        if size >= _BLOCK:
            rows, rest = _whole_rows(b"".join(held))
            held, size = [rest], len(rest)
            if rows:
                yield _parsed(rows, columns)
    rows = b"".join(held)
    if rows:
        yield _parsed(rows, columns)


def _whole_rows(content: bytes) -> tuple[bytes, bytes]:
    """Split after the last line break that is not inside a quoted text."""
    end = content.rfind(b"\n")
    while end >= 0 and content.count(b'"', 0, end) % 2:
        end = content.rfind(b"\n", 0, end)
    return content[: end + 1], content[end + 1 :]


def _parsed(content: bytes, columns: Sequence[str]) -> pl.DataFrame:
    schema: Mapping[str, type[pl.DataType]] = dict.fromkeys(columns, pl.String)
    return pl.read_csv(io.BytesIO(content), has_header=False, schema=schema, quote_char='"')
