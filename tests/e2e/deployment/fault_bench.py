"""Runs that are disturbed, held against one that was not and against the simulation."""

from __future__ import annotations

import secrets
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcredit.governance.audit import verify
from fedcredit.runtime.runs.proposal import Finished
from fedcredit.runtime.simulate import simulate
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from tests.e2e.deployment.house_bench import PATIENCE, Houses, with_ended
else:
    sys.path.append(str(Path(__file__).parent))
    from house_bench import PATIENCE, Houses, with_ended

Totals = dict[PartyId, dict[Any, int]]
Charges = dict[PartyId, tuple[list[Any], list[Any], dict[Any, int]]]


def new_run() -> RunId:
    return RunId(secrets.token_hex(16))


@dataclass
class Bench:
    """A consortium whose exchange runs.

    Args:
        houses: The consortium.
    """

    houses: Houses
    undisturbed: RunId = field(init=False)
    simulated: Path = field(init=False)
    charges: Charges = field(init=False)
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.houses.start_exchange()
        self.simulated = simulate(self.houses.loaded, self.houses.folder / "simulated").out
        self.undisturbed, order = self.begin()
        before, started = self.totals(), time.monotonic()
        self.houses.start_all(self.undisturbed, order)
        self.through(self.undisturbed, order)
        self.seconds = time.monotonic() - started
        self.charges = self._charges(self.undisturbed, before)
        self.check_part(self.undisturbed)

    def begin(self, **changes: Any) -> tuple[RunId, bytes]:
        """A new run that is open in the exchange, and its order."""
        run = new_run()
        self.houses.open_run(run)
        return run, self.houses.order(run, **changes)

    def through(self, run: RunId, order: bytes, patience: float = PATIENCE) -> dict[PartyId, Finished]:
        """Waits until everyone has ended well; who is not running is started, as a node does with what was killed."""
        houses, done = self.houses, dict[PartyId, Finished]()
        for party in houses.parties:
            if (run, party) not in houses.workers:
                over = any((houses.homes[one].runs / run).exists() for one in houses.loaded.spec.parties)
                houses.start(party, run, with_ended(order) if over else order)
        for party in houses.parties:
            done[party] = houses.finished(party, run, patience)
        bad = {party: (one.code, one.text, one.culprit) for party, one in done.items() if not one.ok}
        assert not bad, bad
        return done

    def check(self, run: RunId, before: Totals) -> str:
        """Holds a run against the undisturbed one and the simulation: model, predictions, ledgers, logs."""
        self.check_part(run)
        assert self._charges(run, before) == self.charges
        for party in self.houses.parties:
            folder = self.houses.homes[party].runs / run
            verify(folder / "audit" / f"{party}.jsonl")
            assert not (self.houses.homes[party].state / "runs" / run).exists()
        return "yes"

    def check_part(self, run: RunId, simulated: Path | None = None) -> None:
        """Holds everyone's part of the model, and the bank's predictions, against a simulation."""
        like = simulated or self.simulated
        for party in self.houses.loaded.spec.parties:
            folder = self.houses.homes[party].runs / run
            for made in sorted((like / "model" / party).iterdir()):
                assert (folder / "model" / party / made.name).read_bytes() == made.read_bytes(), (party, made.name)
        bank = self.houses.homes[self.houses.loaded.spec.label_holder.name].runs / run
        assert (bank / "predictions.parquet").read_bytes() == (like / "predictions.parquet").read_bytes()

    def _ledger(self, party: PartyId, query: str, *values: str) -> list[Any]:
        with sqlite3.connect(self.houses.homes[party].state / "ledger.sqlite") as ledger:
            rows = ledger.execute(query, values).fetchall()
        ledger.close()
        return rows

    def totals(self) -> Totals:
        """What every ledger has booked, all runs together."""
        found = {}
        for party in self.houses.loaded.spec.parties:
            if (self.houses.homes[party].state / "ledger.sqlite").exists():
                rows = self._ledger(party, "SELECT counterparty, data_version, kind, feature, amount FROM totals")
                found[party] = {tuple(one[:4]): int(one[4]) for one in rows}
        return found

    def spent(self, party: PartyId, run: RunId) -> tuple[list[Any], list[Any]]:
        """What a run has cost a house: by account, and its answers."""
        return (
            self._ledger(
                party,
                "SELECT counterparty, kind, feature, declared, spent FROM allowances WHERE run = ? ORDER BY 1, 2, 3",
                run,
            ),
            self._ledger(
                party,
                "SELECT counterparty, costs, count(*) FROM answers WHERE run = ? GROUP BY 1, 2 ORDER BY 1, 2",
                run,
            ),
        )

    def grown(self, party: PartyId, before: Totals) -> dict[Any, int]:
        """By how much the totals of all runs have grown in a house."""
        earlier = before.get(party, {})
        grown = {key: amount - earlier.get(key, 0) for key, amount in self.totals()[party].items()}
        return {key: amount for key, amount in grown.items() if amount}

    def _charges(self, run: RunId, before: Totals) -> Charges:
        parties = self.houses.loaded.spec.parties
        return {party: (*self.spent(party, run), self.grown(party, before)) for party in parties}


def named(ended: Mapping[PartyId, Finished], culprit: PartyId, codes: Sequence[str]) -> str:
    """Checks that everyone but one party failed and names it; the codes, in words."""
    found = {one.code for party, one in ended.items() if party != culprit}
    for party, one in ended.items():
        assert not one.ok, party
        if party != culprit:
            assert one.code in codes, (party, one.code, one.text)
            assert culprit in one.text, (party, one.code, one.text, one.culprit)
    return ", ".join(sorted(found))


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The table of faults."""
    head = ("fault", "stage", "what happened", "seconds", "model identical?")
    return [f"| {' | '.join(one)} |" for one in (head, ("---", "---", "---", "---:", "---"), *rows)]


BANK, TAX, CUSTOMS = PartyId("bank"), PartyId("tax_office"), PartyId("customs")
EVERYONE = (BANK, TAX, CUSTOMS, COORDINATOR)
