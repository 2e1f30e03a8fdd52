"""The file under a ledger: opened for its owner only, of one version, changed in transactions that commit as a whole.

A transaction is serialised by ``BEGIN IMMEDIATE`` over all threads and processes, and is on disk when it ends
(``synchronous = FULL``).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcredit.errors import DisclosureRefused, IntegrityError

__all__ = ["LedgerFile", "LedgerKind"]

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class LedgerKind:
    """What kind of ledger a file holds.

    Args:
        name: As errors call it.
        code: First part of the codes of its errors.
        version: Of its tables.
        tables: Statements that make them where they are absent.
    """

    name: str
    code: str
    version: int
    tables: tuple[str, ...]


class LedgerFile:
    """The open file; all queries run inside :meth:`transaction`.

    Args:
        path: The file, created for its owner only if absent; ``":memory:"`` forgets.
        kind: What it holds.

    Raises:
        IntegrityError: the file is not a ledger of this kind and version.
    """

    def __init__(self, path: Path | str, kind: LedgerKind) -> None:
        self._kind = kind
        self._lock = threading.RLock()
        if str(path) != ":memory:":
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(Path(path).name)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, file: str) -> None:
        kind = self._kind
        try:
            self._db.execute("PRAGMA journal_mode = WAL").fetchone()
            self._db.execute("PRAGMA synchronous = FULL")
            with self.transaction():
                version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
                tables = int(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
                if version != kind.version and (version or tables):
                    text = f"{file} is not a {kind.name} of version {kind.version}"
                    raise IntegrityError(f"{kind.code}.version", text)
                for statement in kind.tables:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {kind.version}")
        except sqlite3.Error as error:
            raise IntegrityError(f"{kind.code}.unreadable", f"{file} is not a {kind.name}", str(error)) from None

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits as a whole or not at all.

        Raises:
            DisclosureRefused: another process holds the ledger for too long.
            IntegrityError: the file could not be read or written.
        """
        kind = self._kind
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                text = f"the {kind.name} is busy, nothing leaves"
                raise DisclosureRefused(f"{kind.code}.busy", text, str(error)) from None
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    text = f"the {kind.name} could not be read or written, nothing leaves"
                    raise IntegrityError(f"{kind.code}.failed", text, str(error)) from None
                raise
