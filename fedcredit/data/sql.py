"""Records from a database through SQLAlchemy. Neither URL nor server text is ever repeated: both may hold secrets."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fedcredit.data.formats import RawTable, refuse_repeated
from fedcredit.data.places import expand
from fedcredit.errors import DataError

__all__ = ["engine_of", "read_sql"]


def read_sql(source: str, query: str, base: Path, place: str) -> RawTable:
    """Run one query and read all its rows.

    Args:
        source: SQLAlchemy URL; ``${VARIABLES}`` are expanded, a password without any need to escape it.
        query: SQL text, sent as it is; the connection is rolled back afterwards.
        base: Folder that a relative SQLite file is relative to.
        place: Named in errors.

    Raises:
        DataError: bad URL, missing driver, failed connection or query, mixed types in a column.
    """
    engine = engine_of(source, base, place)
    try:
        with engine.connect() as connection:
            # as it is: no bind parameters, so that a colon or per cent sign in the text stays what it is
            result = connection.execution_options(no_parameters=True).exec_driver_sql(query)
            if not result.returns_rows:
                raise DataError("data.sql", f"{place}: the query returns no rows; write a select")
            names = list(result.keys())
            rows = result.fetchall()
    except sa.exc.SQLAlchemyError as error:
        # the driver's text may repeat the URL, the query or a value of a row
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        right = f"{place}: the database refused ({type(error).__name__}); check URL, server and query"
        raise DataError("data.sql", right, f"SQLSTATE {state}" if state else "") from None
    finally:
        engine.dispose()
    refuse_repeated(names, place)
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return RawTable(pl.DataFrame([_series(n, v, place) for n, v in zip(names, columns, strict=True)]))


def engine_of(source: str, base: Path, place: str) -> sa.Engine:
    """Engine of a database URL, its variables expanded; no connection is made yet.

    Args:
        source: As of ``read_sql``.
        base: As of ``read_sql``.
        place: As of ``read_sql``.

    Raises:
        DataError: bad URL, missing driver, or an SQLite file that does not exist.
    """
    try:
        # part by part, so that a password in a variable may hold any character; or the whole URL in one variable
        url = _expanded(sa.make_url(source), place) if "://" in source else sa.make_url(expand(source, place))
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            file = base / str(url.database)
            if not file.is_file():  # SQLite would make an empty one
                raise DataError("data.no-file", f"{place}: no such file: {file}")
            url = url.set(database=str(file))
        return sa.create_engine(url, poolclass=NullPool)
    except (sa.exc.ArgumentError, ValueError):
        right = "is no database URL that is understood; write dialect+driver://user:${PASSWORD}@host/name"
        raise DataError("data.sql", f"{place}: {right}") from None
    except ModuleNotFoundError as error:
        right = f"the database driver {error.name!r} is not installed; PostgreSQL: `pip install 'fedcredit[postgres]'`"
        raise DataError("data.sql", f"{place}: {right}") from None


def _expanded(url: sa.URL, place: str) -> sa.URL:
    """Expand the variables of each part."""

    def part(value: str | None) -> str | None:
        return None if value is None else expand(value, place)

    query = {
        key: expand(value, place) if isinstance(value, str) else tuple(expand(item, place) for item in value)
        for key, value in url.query.items()
    }
    return url.set(
        username=part(url.username),
        password=part(None if url.password is None else str(url.password)),
        host=part(url.host),
        database=part(url.database),
        query=query,
    )


def _whole(value: object) -> bool:
    """Whether a decimal is a 64-bit whole number, as ids in a numeric column are."""
    return isinstance(value, decimal.Decimal) and value.is_finite() and value == int(value) and abs(value) < 2**63


def _series(name: str, values: Sequence[Any], place: str) -> pl.Series:
    """One typed column: whole numbers, numbers, text, or dates as ISO text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds <= {int}:
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds <= {bool, int, float, decimal.Decimal}:
        if all(_whole(value) for value in values if value is not None):
            return pl.Series(name, [None if v is None else int(v) for v in values], dtype=pl.Int64)
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    if kinds <= {str}:
        return pl.Series(name, values, dtype=pl.String)
    if kinds <= {dt.date} or kinds <= {dt.datetime}:
        return pl.Series(name, values)
    shown = " and ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError("data.mixed", f"{place}: column {name!r} holds {shown}; cast it in the query to one type")
