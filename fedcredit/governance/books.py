"""The tables under the disclosure ledger. No rule is decided here; see :mod:`fedcredit.governance.ledger`.

Amounts are whole thousandths, so that sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcredit.governance.canonical import canonical_json
from fedcredit.governance.ledger_file import LedgerFile, LedgerKind
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, CostKind, Declaration

__all__ = ["Account", "Books", "Entry", "costs_text", "names_ids_only"]

_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS totals (counterparty TEXT NOT NULL, data_version TEXT NOT NULL, kind TEXT NOT NULL,"
        " feature TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount >= 0),"
        " PRIMARY KEY (counterparty, data_version, kind, feature))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS declarations (run TEXT NOT NULL, counterparty TEXT NOT NULL, purpose TEXT NOT NULL,"
        " data_version TEXT NOT NULL, n_eff INTEGER NOT NULL, n_bad INTEGER NOT NULL, noise_rows REAL NOT NULL,"
        " evidence TEXT NOT NULL, costs TEXT NOT NULL, PRIMARY KEY (run, counterparty, purpose))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS allowances (run TEXT NOT NULL, counterparty TEXT NOT NULL, kind TEXT NOT NULL,"
        " feature TEXT NOT NULL, declared INTEGER NOT NULL CHECK (declared >= 0),"
        " spent INTEGER NOT NULL DEFAULT 0 CHECK (spent <= declared), PRIMARY KEY (run, counterparty, kind, feature))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS answers (run TEXT NOT NULL, counterparty TEXT NOT NULL, request TEXT NOT NULL,"
        " response_sha256 TEXT NOT NULL, response BLOB, costs TEXT NOT NULL,"
        " PRIMARY KEY (run, counterparty, request))"
    ),
    "CREATE TABLE IF NOT EXISTS closed (run TEXT PRIMARY KEY)",
)
_KIND = LedgerKind("disclosure ledger", "ledger", 1, _TABLES)

Account = tuple[CostKind, str]


@dataclass(frozen=True)
class Entry:
    """Whose account is meant.

    Args:
        run: The run.
        counterparty: Who is told.
    """

    run: RunId
    counterparty: PartyId


class Books(LedgerFile):
    """The open file and its queries, all of which run inside :meth:`transaction`.

    Args:
        path: The file, created for its owner only if absent; ``":memory:"`` forgets.

    Raises:
        IntegrityError: the file is not a ledger of this version.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, _KIND)

    def is_closed(self, run: RunId) -> bool:
        """Whether a run has ended."""
        return self._db.execute("SELECT 1 FROM closed WHERE run = ?", (run,)).fetchone() is not None

    def close_run(self, run: RunId) -> None:
        """Marks a run as ended and drops its stored answers."""
        self._db.execute("INSERT INTO closed VALUES (?) ON CONFLICT DO NOTHING", (run,))
        self._db.execute("UPDATE answers SET response = NULL WHERE run = ?", (run,))

    def declarations(self, entry: Entry) -> dict[str, tuple[str, Basis, str]]:
        """Data version, basis and costs text of a run's declarations to a counterparty, by purpose."""
        rows = self._db.execute(
            "SELECT purpose, data_version, n_eff, n_bad, noise_rows, costs FROM declarations"
            " WHERE run = ? AND counterparty = ? ORDER BY rowid",
            (entry.run, entry.counterparty),
        )
        return {row[0]: (row[1], Basis(row[2], row[3], row[4]), row[5]) for row in rows}

    def add_declaration(self, entry: Entry, declaration: Declaration, costs: Mapping[Account, int]) -> None:
        """Records a declaration and the allowances it gives."""
        basis = declaration.basis
        self._db.execute(
            "INSERT INTO declarations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.run, entry.counterparty, declaration.purpose, declaration.data_version),
                *(basis.n_eff, basis.n_bad, basis.noise_rows, declaration.evidence, costs_text(costs)),
            ),
        )
        self._db.executemany(
            "INSERT INTO allowances VALUES (?, ?, ?, ?, ?, 0)"
            " ON CONFLICT DO UPDATE SET declared = declared + excluded.declared",
            [(entry.run, entry.counterparty, kind, feature, amount) for (kind, feature), amount in costs.items()],
        )

    def evidence(self, entry: Entry) -> dict[str, str]:
        """Digests of the signed envelopes that declared bases came in, by purpose."""
        rows = self._db.execute(
            "SELECT purpose, evidence FROM declarations WHERE run = ? AND counterparty = ?",
            (entry.run, entry.counterparty),
        )
        return dict(rows.fetchall())

    def pending(self, entry: Entry, account: Account) -> int:
        """What a run has declared and not spent yet on one account."""
        row = self._db.execute(
            "SELECT declared - spent FROM allowances WHERE run = ? AND counterparty = ? AND kind = ? AND feature = ?",
            (entry.run, entry.counterparty, *account),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def total(self, counterparty: PartyId, data_version: str, account: Account) -> int:
        """What all runs together have spent on one account."""
        row = self._db.execute(
            "SELECT amount FROM totals WHERE counterparty = ? AND data_version = ? AND kind = ? AND feature = ?",
            (counterparty, data_version, *account),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def totals(self, counterparty: PartyId, data_version: str) -> dict[Account, int]:
        """All accounts of one counterparty and data version."""
        rows = self._db.execute(
            "SELECT kind, feature, amount FROM totals WHERE counterparty = ? AND data_version = ?",
            (counterparty, data_version),
        )
        return {(CostKind(kind), feature): int(amount) for kind, feature, amount in rows}

    def pay(self, entry: Entry, data_version: str, costs: Mapping[Account, int]) -> None:
        """Adds to the totals and takes off the run's allowances."""
        self._db.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            [(entry.counterparty, data_version, kind, feature, amount) for (kind, feature), amount in costs.items()],
        )
        self._db.executemany(
            "UPDATE allowances SET spent = spent + ? WHERE run = ? AND counterparty = ? AND kind = ? AND feature = ?",
            [(amount, entry.run, entry.counterparty, kind, feature) for (kind, feature), amount in costs.items()],
        )

    def answer(self, entry: Entry, request: str) -> tuple[str, bytes | None] | None:
        """Digest and bytes of the stored answer to a request; the bytes are gone once the run is closed."""
        row = self._db.execute(
            "SELECT response_sha256, response FROM answers WHERE run = ? AND counterparty = ? AND request = ?",
            (entry.run, entry.counterparty, request),
        ).fetchone()
        return None if row is None else (str(row[0]), None if row[1] is None else bytes(row[1]))

    def add_answer(self, entry: Entry, request: str, answer: tuple[str, bytes], costs: Mapping[Account, int]) -> None:
        """Records an answer that may now leave."""
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
            (entry.run, entry.counterparty, request, *answer, costs_text(costs)),
        )

    def counterparties(self, run: RunId) -> tuple[PartyId, ...]:
        """All parties a run declared to, by name."""
        rows = self._db.execute("SELECT DISTINCT counterparty FROM declarations WHERE run = ? ORDER BY 1", (run,))
        return tuple(PartyId(row[0]) for row in rows)


def costs_text(costs: Mapping[Account, int]) -> str:
    """Canonical text of amounts by account."""
    return canonical_json(sorted([kind, feature, amount] for (kind, feature), amount in costs.items()))


def names_ids_only(costs: str) -> bool:
    """Whether a text of `costs_text` names ids and nothing else."""
    kinds = {kind for kind, _, _ in json.loads(costs)}
    return kinds == {CostKind.IDS_ASKED}
