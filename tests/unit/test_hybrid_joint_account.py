"""What several banks learn of the same rows is booked to each of them; caps follow from the smallest."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TypeVar, cast

import pytest

from fedcredit.errors import BoundError, DisclosureRefused, TransportError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.bin.messages import Budgets, RunBasis
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.hybrid.joint_account import JointAccount
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import Message

M = TypeVar("M", bound=Message)

A, B, C, HOLDER = (PartyId(name) for name in ("a", "b", "c", "tax_office"))
SIZES = {A: (4000, 900), B: (1000, 300), C: (2000, 250)}
VERSION = "0" * 64


class Part:
    """A holder's channel in one bank's part: a real ledger, and a bank that says its size."""

    def __init__(self, bank: PartyId, ledger: Ledger) -> None:
        self.bank, self._ledger, self._run = bank, ledger, RunId(f"{bank}" * 32)

    @property
    def party(self) -> PartyId:
        return HOLDER

    async def send(self, to: PartyId, message: Message, *, spend: Spend | None = None) -> None:
        del message
        if spend is not None:
            self._ledger.spend(self._run, spend.learner or to, spend, b"answer")

    async def broadcast(self, to: Sequence[PartyId], message: Message) -> None:
        raise AssertionError

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        assert kind is RunBasis
        await asyncio.sleep(0)
        rows, bads = SIZES[sender]
        return cast("M", RunBasis(n_eff=rows, n_bad=bads))

    async def gather(self, senders: Sequence[PartyId], kind: type[M]) -> dict[PartyId, M]:
        raise AssertionError

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        self._ledger.declare(self._run, counterparty, declaration)

    def headroom(
        self, counterparty: PartyId, data_version: str, basis: Basis, kind: CostKind, features: Sequence[str]
    ) -> tuple[float, ...]:
        return self._ledger.headroom(self._run, counterparty, data_version, basis, [(kind, f) for f in features])

    def stage(self, name: str) -> None:
        raise AssertionError


def meet(ids: dict[PartyId, Collection[str] | None]) -> tuple[Ledger, dict[PartyId, tuple[Channel, Basis]]]:
    """Every part with the basis that the holder goes on with."""
    ledger = Ledger(":memory:", CapRules())

    async def run() -> dict[PartyId, tuple[Channel, Basis]]:
        account = JointAccount(list(ids))

        async def part(bank: PartyId) -> tuple[Channel, Basis]:
            channel = account.channel(Part(bank, ledger), bank, ids[bank])
            signed = await channel.receive(bank, RunBasis)
            return channel, Basis(n_eff=signed.n_eff, n_bad=signed.n_bad)

        return dict(zip(ids, await asyncio.gather(*(part(bank) for bank in ids)), strict=True))

    return ledger, asyncio.run(run())


def declared(basis: Basis, equations: float) -> Declaration:
    return Declaration(data_version=VERSION, basis=basis, costs=(Cost(CostKind.EQUATIONS, "income", equations),))


def room(channel: Channel, bank: PartyId, basis: Basis) -> float:
    (left,) = channel.headroom(bank, VERSION, basis, CostKind.EQUATIONS, ["income"])
    return left


def test_caps_follow_from_the_smallest_bank() -> None:
    _, parts = meet({A: {"1"}, B: {"2"}, C: {"3"}})
    assert {basis for _, basis in parts.values()} == {Basis(n_eff=1000, n_bad=250)}
    assert {room(channel, bank, basis) for bank, (channel, basis) in parts.items()} == {20.0}


def test_banks_without_a_common_row_pay_for_themselves() -> None:
    ledger, parts = meet({A: {"1"}, B: {"2"}, C: {"3"}})
    channel, basis = parts[A]
    channel.declare(A, declared(basis, 20))
    asyncio.run(channel.send(A, Budgets(equations=[]), spend=Spend("1" * 64, (Cost(CostKind.EQUATIONS, "income", 8),))))
    assert [line.equations for line in ledger.report(RunId("a" * 32))] == [8.0]


def test_a_common_row_books_the_answers_to_both() -> None:
    """Two of three banks share one row: each has half the room; the third has all of it."""
    ledger, parts = meet({A: {"1", "9"}, B: {"2", "9"}, C: {"3"}})
    assert [room(parts[bank][0], bank, parts[bank][1]) for bank in (A, B, C)] == [10.0, 10.0, 20.0]
    channel, basis = parts[A]
    with pytest.raises(DisclosureRefused):
        channel.declare(A, declared(basis, 11))
    channel.declare(A, declared(basis, 10))
    asyncio.run(channel.send(A, Budgets(equations=[]), spend=Spend("1" * 64, (Cost(CostKind.EQUATIONS, "income", 3),))))
    assert [line.equations for line in ledger.report(RunId("a" * 32))] == [6.0]
    assert room(channel, A, basis) == 0.0


def test_rows_that_nobody_knows_may_be_common_to_all() -> None:
    _, parts = meet({A: None, B: {"2"}, C: {"3"}})
    assert [room(parts[bank][0], bank, parts[bank][1]) for bank in (A, B, C)] == [pytest.approx(20 / 3), 10.0, 10.0]


def test_totals_that_the_coordinator_passes_on_are_priced_too() -> None:
    ledger, parts = meet({A: {"9"}, B: {"9"}, C: {"9"}})
    channel, basis = parts[A]
    costs = (Cost(CostKind.ROW_BITS, "", 8.0),)
    channel.declare(A, Declaration(data_version=VERSION, basis=basis, costs=costs))
    spend = Spend("2" * 64, costs, learner=A)
    asyncio.run(channel.send(COORDINATOR, Budgets(equations=[]), spend=spend))
    assert [line.row_bits for line in ledger.report(RunId("a" * 32))] == [24.0]


def test_nothing_is_declared_before_the_sizes_are_known() -> None:
    channel = JointAccount([A, B]).channel(Part(A, Ledger(":memory:", CapRules())), A, {"1"})
    with pytest.raises(BoundError, match="before the banks' sizes"):
        channel.declare(A, declared(Basis(10, 5), 1))


def test_a_bank_that_never_says_its_size_is_named() -> None:
    channel = JointAccount([A, B], timeout_s=0.01).channel(Part(A, Ledger(":memory:", CapRules())), A, {"1"})
    with pytest.raises(TransportError, match="b has not said its size"):
        asyncio.run(channel.receive(A, RunBasis))


def test_a_bank_says_its_size_once() -> None:
    account = JointAccount([A])
    channel = account.channel(Part(A, Ledger(":memory:", CapRules())), A, {"1"})
    asyncio.run(channel.receive(A, RunBasis))
    with pytest.raises(BoundError, match="has said its size before"):
        asyncio.run(channel.receive(A, RunBasis))
    with pytest.raises(BoundError, match="no bank of this run"):
        asyncio.run(account.meet(B, (1, 1), None))
