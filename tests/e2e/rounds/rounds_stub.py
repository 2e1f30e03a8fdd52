"""A protocol of rounds that adds numbers in the clear, and houses that play it: what carries visits is tested by it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import DataError, PeerError, TransportError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import House, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import simulation_policy
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.rounds.bank import RoundHouse
from fedcredit.runtime.rounds.driver import RoundDriver, RoundLimits, Visit
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import Count, Message
from fedcredit.wire.schema import Declared, ProtocolSchema, merge

RUN = RunId("ab" * 16)
LEAST = 3


class Total(Message, frozen=True, kw_only=True, tag="stub.total"):
    """The coordinator's word."""

    round: Count
    total: Count


class Value(Message, frozen=True, kw_only=True, tag="stub.value"):
    """A bank's word."""

    round: Count
    value: Count


SCHEMA = ProtocolSchema(
    "stub",
    (
        Declared(Total, frozenset({Role.COORDINATOR}), frozenset({Role.LABEL_HOLDER}), 1024),
        Declared(Value, frozenset({Role.LABEL_HOLDER}), frozenset({Role.COORDINATOR}), 1024),
    ),
)


class StubBank:
    """Sends its number, raised by the last total modulo 97, in every round."""

    def __init__(self, own: int, rounds: int, state: bytes | None) -> None:
        self._own, self._rounds = own, rounds
        self.round, self.total = (0, 0) if state is None else msgspec.msgpack.decode(state, type=tuple[int, int])

    def answer(self, messages: Sequence[Message]) -> list[tuple[PartyId, Message]]:
        for one in messages:
            if not isinstance(one, Total) or one.round != self.round:
                raise PeerError("stub.round", "the total of another round")
            self.total = one.total
        if self.round == self._rounds:
            self.round += 1
            return []
        self.round += 1
        return [(COORDINATOR, Value(round=self.round, value=self._own + self.total % 97))]

    def state(self) -> bytes:
        return msgspec.msgpack.encode((self.round, self.total))

    @property
    def finished(self) -> bool:
        return self.round > self._rounds


@dataclass
class StubRelay:
    """Adds; goes on without who is missing."""

    banks: list[PartyId]
    rounds: int
    round: int = 0
    finished: bool = False
    totals: list[int] = field(default_factory=list)

    def start(self) -> Mapping[PartyId, Sequence[Message]]:
        return {party: [] for party in self.banks}

    def missing(self, parties: Sequence[PartyId]) -> None:
        self.banks = [one for one in self.banks if one not in parties]
        if len(self.banks) < LEAST:
            raise TransportError("secure_sum.floor", f"{len(self.banks)} banks are left, {LEAST} are needed")

    def arrived(self, messages: Mapping[PartyId, Sequence[Message]]) -> Mapping[PartyId, Sequence[Message]]:
        if self.finished:
            return {}
        self.round += 1
        found = [one for party in self.banks for one in messages[party]]
        total = sum(one.value for one in found if isinstance(one, Value) and one.round == self.round)
        self.totals.append(total)
        self.finished = self.round == self.rounds
        return {party: [Total(round=self.round, total=total)] for party in self.banks}


def expected(own: Sequence[int], rounds: int) -> list[int]:
    """Totals as plain adding gives them."""
    totals, total = [], 0
    for _ in range(rounds):
        total = sum(one + total % 97 for one in own)
        totals.append(total)
    return totals


def names(count: int) -> list[PartyId]:
    return [PartyId(f"bank_{number:02d}") for number in range(1, count + 1)]


def key(party: PartyId) -> SigningKey:
    return SigningKey(RunSecret(party.encode().ljust(32, b"\0")).derive("envelope/signing-key", b"stub"))


def context(banks: Sequence[PartyId]) -> RunContext:
    roster = {**dict.fromkeys(banks, Role.LABEL_HOLDER), COORDINATOR: Role.COORDINATOR}
    return RunContext(RUN, "d" * 64, roster, {party: key(party).public for party in roster}, merge(SCHEMA))


@contextmanager
def house(folder: Path, party: PartyId, banks: Sequence[PartyId]) -> Iterator[House]:
    others = [one for one in (*banks, COORDINATOR) if one != party]
    audit = AuditLog(folder / "audit" / f"{party}.jsonl", party, RUN, lambda: datetime.now(UTC), durable=False)
    with Ledger(":memory:") as ledger:
        yield House(party, key(party), simulation_policy(others, ["stub"]), ledger, audit, lambda: datetime.now(UTC))
    audit.suspend()


@dataclass
class Town:
    """Stub banks on disk, each opened anew for every visit."""

    folder: Path
    count: int
    rounds: int

    @property
    def banks(self) -> list[PartyId]:
        return names(self.count)

    def visit(self, party: PartyId, question: bytes) -> bytes:
        place = self.folder / "checkpoints" / party
        if (self.folder / f"{party}.killed").exists():
            raise TransportError("node.unavailable", "its node is not connected")
        if (self.folder / f"{party}.broken").exists():
            raise DataError("data", "the party's own records do not carry this run")
        if (self.folder / f"{party}.dies").exists():
            (self.folder / f"{party}.dies").unlink()
            os._exit(9)
        if (self.folder / f"{party}.sleeps").exists():
            time.sleep(10)

        def make(state: bytes | None) -> StubBank:
            return StubBank(self.banks.index(party) + 1, self.rounds, state)

        with house(self.folder, party, self.banks) as own:
            return RoundHouse(context(self.banks), own, FileCheckpoints(place), make).visit(question)

    @contextmanager
    def driver(self, visit: Visit, limits: RoundLimits | None = None) -> Iterator[tuple[RoundDriver, StubRelay]]:
        relay = StubRelay(self.banks, self.rounds)
        with house(self.folder, COORDINATOR, self.banks) as own:
            yield RoundDriver(context(self.banks), own, relay, visit, limits), relay

    async def at_once(self, party: PartyId, question: bytes) -> bytes:
        return self.visit(party, question)


def flower_visit(folder: Path, party: PartyId, question: bytes) -> bytes:
    """What a virtual node of Flower's does, by the numbers in a file of the folder."""
    count, rounds = (int(one) for one in (folder / "stub").read_text().split())
    return Town(folder, count, rounds).visit(party, question)
