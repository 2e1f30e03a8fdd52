"""Sources as holders keep them: one SQLite file or one folder of Parquet files, written piece by piece, with digests.

A digest is of the content of a table, column by column, so that the same records have the same digest whatever the
version of the library that wrote the file.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from fedcredit.errors import DataError

__all__ = ["ContentDigest", "ParquetSink", "Sink", "SqliteSink", "digest_of", "read_back"]

_SQL_TYPES = {pl.String: "TEXT", pl.Float64: "REAL", pl.Int64: "INTEGER"}
_LOST, _END = "\x00", "\n"  # stand for null and for the end of a text in the digest; no text holds them


class ContentDigest:
    """Digest of a table that comes in pieces: SHA-256 of the columns, each hashed over all rows in order."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, hashlib._Hash] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take in the next rows; all pieces have the same columns of text, Int64 or Float64."""
        self.rows += len(frame)
        for column in frame.iter_columns() if len(frame) else ():
            hashed = self._columns.setdefault(column.name, hashlib.sha256())
            if column.dtype == pl.String:
                text = column.fill_null(_LOST) if column.null_count() else column
                hashed.update(f"{text.str.join(_END).item()}{_END}".encode())
            else:
                whole = column.fill_null(math.nan) if column.null_count() else column
                hashed.update(whole.to_numpy().tobytes())

    def hexdigest(self) -> str:
        """The digest so far."""
        total = hashlib.sha256()
        for name, hashed in self._columns.items():
            total.update(f"{name}={hashed.hexdigest()}\n".encode())
        return total.hexdigest()


class Sink(Protocol):
    """Where the tables of one holder go."""

    digests: dict[str, ContentDigest]

    def append(self, table: str, frame: pl.DataFrame) -> None:
        """Write the next rows of a table; its columns are those of the first piece."""
        ...

    def close(self) -> None:
        """Finish all tables."""
        ...


class _Closing:
    """Digests, and the end of a sink by a ``with`` block."""

    def __init__(self) -> None:
        self.digests: dict[str, ContentDigest] = {}

    def _note(self, table: str, frame: pl.DataFrame) -> bool:
        """Take the rows into the digest; True for the first piece of a table."""
        first = table not in self.digests
        self.digests.setdefault(table, ContentDigest()).add(frame)
        return first

    def close(self) -> None:
        """Finish all tables."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SqliteSink(_Closing):
    """A new SQLite file.

    Args:
        path: Must not exist yet.

    Raises:
        DataError: the file exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if path.exists():
            raise DataError("district.exists", f"{path} exists; name a new folder or empty this one")
        self._connection = sqlite3.connect(path, isolation_level=None)
        # Nothing is lost by a crash that writing the district again does not bring back.
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")

    def append(self, table: str, frame: pl.DataFrame) -> None:
        """Write the next rows of a table; the first piece creates it."""
        if self._note(table, frame):
            columns = ", ".join(f'"{name}" {_SQL_TYPES[type(kind)]}' for name, kind in frame.schema.items())
            self._connection.execute(f"CREATE TABLE {table} ({columns})")
        if not len(frame):
            return
        places = ", ".join("?" * frame.width)
        rows = zip(*(column.to_list() for column in frame.iter_columns()), strict=True)
        self._connection.execute("BEGIN")
        self._connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 -- names of this package
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class ParquetSink(_Closing):
    """A new folder of Parquet files TABLE.parquet.

    Args:
        folder: Made if it is not there; must hold no such file yet.

    Raises:
        DataError: the folder holds something.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError("district.exists", f"{folder} is not empty; name a new folder or empty this one")
        self._folder = folder
        self._writers: dict[str, pyarrow.parquet.ParquetWriter] = {}

    def append(self, table: str, frame: pl.DataFrame) -> None:
        """Write the next rows of a table as one row group."""
        first = self._note(table, frame)
        arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if first:
            path = self._folder / f"{table}.parquet"
            self._writers[table] = pyarrow.parquet.ParquetWriter(path, arrow.schema, compression="zstd")
        self._writers[table].write_table(_plain(arrow, self._writers[table].schema))

    def close(self) -> None:
        """Write the ends of all files."""
        for writer in self._writers.values():
            writer.close()


def _plain(arrow: pa.Table, schema: pa.Schema) -> pa.Table:
    return arrow.cast(schema) if arrow.schema != schema else arrow


def digest_of(frame: pl.DataFrame) -> str:
    """Content digest of a whole table."""
    digest = ContentDigest()
    digest.add(frame)
    return digest.hexdigest()


def read_back(place: Path, table: str) -> pl.DataFrame:
    """A table of a source as it was written, rows in the order of the file.

    Args:
        place: SQLite file or folder of Parquet files, made by a sink.
        table: Its name.

    Raises:
        DataError: no such source or table.
    """
    if place.is_dir() and (place / f"{table}.parquet").is_file():
        return pl.read_parquet(place / f"{table}.parquet")
    if not place.is_file():
        raise DataError("data.no-file", f"no table {table!r} in {place}")
    connection = sqlite3.connect(place.absolute().as_uri() + "?mode=ro", uri=True)
    try:
        described = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
        if not described:
            raise DataError("data.no-file", f"no table {table!r} in {place}")
        kinds = {kind: polars for polars, kind in _SQL_TYPES.items()}
        schema = {name: kinds[kind] for name, kind in described}
        rows = connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()  # noqa: S608 -- it exists
    finally:
        connection.close()
    return pl.DataFrame(rows, schema=schema, orient="row")
