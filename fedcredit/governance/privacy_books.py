"""The file under the privacy ledger: entries in a hash chain that can only be added to. No rule is decided here.

An entry's hash is SHA-256 over the canonical JSON of its other fields, the hash of the entry before it among them. The
file refuses updates and deletions, and `PrivacyBooks.verify` finds what was changed around it. A transaction is
serialised over all threads and processes and is on disk when it ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcredit.errors import IntegrityError
from fedcredit.governance.canonical import canonical_json
from fedcredit.governance.ledger_file import LedgerFile, LedgerKind
from fedcredit.types import RunId

__all__ = ["Entry", "PrivacyBooks"]

_GENESIS = hashlib.sha256(b"fedcredit/privacy-ledger/v1").hexdigest()
_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS entries (line INTEGER PRIMARY KEY, run TEXT NOT NULL, kind TEXT NOT NULL,"
        " content TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS by_run ON entries (run)",
    (
        "CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries"
        " BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END"
    ),
    (
        "CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries"
        " BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END"
    ),
)
_KIND = LedgerKind("privacy ledger", "dp", 1, _TABLES)

_ALL = "SELECT line, run, kind, content, previous, hash FROM entries ORDER BY line"
_OF_RUN = "SELECT line, run, kind, content, previous, hash FROM entries WHERE run = ? ORDER BY line"


@dataclass(frozen=True)
class Entry:
    """One entry.

    Args:
        line: Its number, from 1.
        run: The run.
        kind: What happened.
        content: More of it, canonical JSON.
        previous: Hash of the entry before it.
        hash: Its own.
    """

    line: int
    run: str
    kind: str
    content: str
    previous: str
    hash: str


class PrivacyBooks(LedgerFile):
    """The open file; everything but `close` runs inside :meth:`transaction`.

    Args:
        path: The file, created for its owner only if absent; ``":memory:"`` forgets.

    Raises:
        IntegrityError: the file is not a privacy ledger of this version.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, _KIND)

    def entries(self, run: RunId | None = None) -> Iterator[Entry]:
        """Entries in their order; of one run if it is named."""
        rows = self._db.execute(_ALL) if run is None else self._db.execute(_OF_RUN, (run,))
        for row in rows:
            yield Entry(*row)

    def head(self) -> str:
        """Hash of the last entry."""
        row = self._db.execute("SELECT hash FROM entries ORDER BY line DESC LIMIT 1").fetchone()
        return _GENESIS if row is None else str(row[0])

    def append(self, run: RunId, kind: str, content: Mapping[str, object]) -> None:
        """Adds one entry."""
        line = int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0]) + 1
        text, previous = canonical_json(dict(content)), self.head()
        digest = _hash(line, run, kind, text, previous)
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (line, run, kind, text, previous, digest))

    def verify(self, head: str | None) -> int:
        """Checks the chain, and that an entry of hash ``head`` is part of it; returns the number of entries.

        Raises:
            IntegrityError: naming the first entry that is wrong.
        """
        previous, count, found = _GENESIS, 0, head in {None, _GENESIS}
        for entry in self.entries():
            count += 1
            if entry.line != count or entry.previous != previous:
                raise IntegrityError("dp.order", f"entry {count} of the privacy ledger is missing or out of order")
            if entry.hash != _hash(entry.line, entry.run, entry.kind, entry.content, entry.previous):
                raise IntegrityError(
                    "dp.changed", f"entry {count} of the privacy ledger was changed after it was written"
                )
            previous = entry.hash
            found = found or previous == head
        if not found:
            raise IntegrityError("dp.head", f"the privacy ledger of {count} entries no longer holds the noted head")
        return count


def _hash(line: int, run: str, kind: str, content: str, previous: str) -> str:
    whole = {"content": content, "kind": kind, "line": line, "previous": previous, "run": run}
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()
