"""The local network: what honest runs look like from the outside, and how they end when a party does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcredit.errors import DataError, DisclosureRefused, FedCreditError, PeerError, SpecError, TransportError
from fedcredit.governance.audit import verify_directory
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import Message
from fedcredit.wire.schema import Declared, ProtocolSchema

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTIL = PartyId("bank"), PartyId("tax"), PartyId("utility")
ROSTER = {
    BANK: Role.LABEL_HOLDER,
    TAX: Role.FEATURE_HOLDER,
    UTIL: Role.FEATURE_HOLDER,
    COORDINATOR: Role.COORDINATOR,
}
L, P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})


class Ask(Message, frozen=True, kw_only=True, tag="probe.ask"):
    number: int


class Tell(Message, frozen=True, kw_only=True, tag="probe.tell"):
    number: int


SCHEMA = ProtocolSchema("probe", (Declared(Ask, L, P, max_bytes=100), Declared(Tell, P, L, max_bytes=100, spends=True)))
COST = (Cost(CostKind.EQUATIONS, "x0", 1),)


class Counting:
    """Entropy for tests: every call gives other bytes, every run the same."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int, /) -> bytes:
        self._taken += 1
        return self._taken.to_bytes(size, "big")


def _settings(**changes: Any) -> LocalSettings:
    settings = LocalSettings(RunId("run-1"), "digest", ROSTER, [SCHEMA], Counting(), timeout_s=5)
    return replace(settings, **changes)


async def bank(channel: Channel, rounds: int = 2) -> list[int]:
    channel.stage("sum")
    numbers = []
    for number in range(rounds):
        await channel.broadcast([TAX, UTIL], Ask(number=number))
        answers = await channel.gather([TAX, UTIL], Tell)
        numbers.append(sum(answer.number for answer in answers.values()))
    return numbers


async def holder(channel: Channel, times: int, rounds: int = 2) -> str:
    channel.stage("sum")
    for number in range(rounds):
        ask = await channel.receive(BANK, Ask)
        if number == 0:
            channel.declare(BANK, Declaration("v1", Basis(1_000, 100), COST * rounds))
        await channel.send(BANK, Tell(number=ask.number * times), spend=Spend(f"{number:064x}", COST))
    return "done"


async def idle() -> None:
    """A party that has nothing to do."""


async def gone() -> None:
    """A party that neither answers nor ends."""
    await asyncio.Event().wait()


def _run(network: LocalNetwork, **changes: Coroutine[Any, Any, Any]) -> dict[PartyId, Any]:
    roles: dict[str, Coroutine[Any, Any, Any]] = dict(changes)
    if "bank" not in roles:
        roles["bank"] = bank(network.channel(BANK))
    if "tax" not in roles:
        roles["tax"] = holder(network.channel(TAX), 10)
    if "utility" not in roles:
        roles["utility"] = holder(network.channel(UTIL), 100)
    roles["coordinator"] = idle()
    return asyncio.run(network.run_roles({PartyId(party): role for party, role in roles.items()}))


def test_an_honest_run_ends_with_every_roles_result() -> None:
    network = LocalNetwork(_settings())
    assert _run(network) == {BANK: [0, 110], TAX: "done", UTIL: "done", COORDINATOR: None}
    assert network.messages == {BANK: 4, TAX: 2, UTIL: 2, COORDINATOR: 0}
    assert sum(entry.bytes for entry in network.transcript if entry.sender == BANK) == network.bytes_sent[BANK]
    first = network.transcript[0]
    assert (first.sender, first.recipient, first.kind, first.stage, first.sequence) == (
        BANK,
        TAX,
        "probe.ask",
        "sum",
        0,
    )
    line = network.ledger(TAX).report(RunId("run-1"))[0]
    assert (line.counterparty, line.equations, line.equations_cap) == (BANK, 2, 10)
    assert all(seconds >= 0 for seconds in network.cpu_seconds.values())
    network.close()


def test_the_same_run_has_the_same_transcript() -> None:
    digests = set()
    for _ in range(2):
        network = LocalNetwork(_settings())
        _run(network)
        digests.add(network.transcript_digest())
    assert len(digests) == 1
    other = LocalNetwork(_settings())
    _run(other, tax=holder(other.channel(TAX), 11))
    assert other.transcript_digest() not in digests


def test_audit_logs_close_under_published_heads_after_success_and_failure(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        roles: dict[str, Coroutine[Any, Any, Any]] = {"tax": _failing()} if name == "bad" else {}
        network = LocalNetwork(_settings(audit_dir=tmp_path / name))
        try:
            _run(network, **roles)
        except DataError:
            assert name == "bad"
        verified = verify_directory(tmp_path / name)
        assert {party: one.head for party, one in verified.items()} == network.heads
        assert verified.keys() == ROSTER.keys()


def test_the_evidence_of_a_claim_is_the_envelope_it_came_in(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "tax.sqlite")
    _run(LocalNetwork(_settings(ledgers={TAX: ledger})))
    evidence = ledger.evidence(RunId("run-1"), BANK)["run"]
    assert len(evidence) == 64
    ledger.close()


def test_a_finished_runs_account_is_closed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "tax.sqlite")
    _run(LocalNetwork(_settings(ledgers={TAX: ledger})))
    with pytest.raises(DisclosureRefused, match="ended"):
        _run(LocalNetwork(_settings(ledgers={TAX: ledger})))
    ledger.close()


def test_runs_share_a_persistent_ledger(tmp_path: Path) -> None:
    for number in range(5):
        ledger = Ledger(tmp_path / "tax.sqlite")
        _run(LocalNetwork(_settings(run=RunId(f"run-{number}"), ledgers={TAX: ledger})))
        ledger.close()
    ledger = Ledger(tmp_path / "tax.sqlite")
    with pytest.raises(DisclosureRefused, match="asked 2, spent 10, cap 10, still possible 0"):
        _run(LocalNetwork(_settings(run=RunId("run-9"), ledgers={TAX: ledger})))
    ledger.close()


def test_a_run_that_was_not_sealed_goes_on_with_the_same_envelopes_and_is_charged_once(tmp_path: Path) -> None:
    keys = {party: SigningKey(bytes([number]) * 32) for number, party in enumerate(ROSTER)}
    seen: list[list[bytes]] = []

    def overheard(_: PartyId, __: PartyId, ___: str, data: bytes) -> list[bytes]:
        seen[-1].append(data)
        return [data]

    evidence = set()
    for attempt in range(3):
        seen.append([])
        ledger = Ledger(tmp_path / "tax.sqlite")
        changes: dict[str, Any] = {"audit_dir": tmp_path / "audit", "headroom_dir": tmp_path / "headroom"}
        network = LocalNetwork(_settings(ledgers={TAX: ledger}, signing_keys=keys, tamper=overheard, **changes))
        roles = {TAX: holder(network.channel(TAX), 10), UTIL: holder(network.channel(UTIL), 100)}
        asyncio.run(network.run_roles({BANK: bank(network.channel(BANK)), **roles}, seal=False))
        evidence.add(ledger.evidence(RunId("run-1"), BANK)["run"])
        assert ledger.report(RunId("run-1"))[0].equations == 2
        assert network.heads == {}
        if attempt == 2:
            network.seal()
        ledger.close()
    assert seen[0] == seen[1] == seen[2]
    assert len(evidence) == 1
    assert verify_directory(tmp_path / "audit").keys() == ROSTER.keys()
    events = [json.loads(line)["event"] for line in (tmp_path / "audit" / "tax.jsonl").read_text().splitlines()]
    assert events.count("resumed") == 2


async def _failing() -> None:
    await asyncio.sleep(0)
    raise DataError("data.column", "tax: column x0 is empty")


def test_the_root_cause_is_raised_and_the_others_name_the_culprit() -> None:
    network = LocalNetwork(_settings(timeout_s=60))
    with pytest.raises(DataError, match="column x0"):
        _run(network, tax=_failing())
    for party in (BANK, UTIL):
        error = network.failures[party]
        assert isinstance(error, PeerError)
        # what is wrong with the records of another house is not for a peer
        assert error.public == "tax stopped the run: the party's own records do not carry this run [data]"
    kinds = [(entry.sender, entry.recipient) for entry in network.transcript if entry.kind == "run.error"]
    assert kinds == [(TAX, BANK), (TAX, UTIL), (TAX, COORDINATOR)]


def test_an_internal_error_is_raised_but_its_text_stays_at_home() -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("row 17 has income 93000")

    network = LocalNetwork(_settings())
    with pytest.raises(ValueError, match="row 17"):
        _run(network, tax=broken())
    error = network.failures[BANK]
    assert isinstance(error, FedCreditError)
    assert "93000" not in error.public
    assert "tax stopped the run" in error.public


def test_a_house_whose_policy_denies_all_is_still_noticed_at_once() -> None:
    network = LocalNetwork(_settings(policies={TAX: Policy()}, timeout_s=60))
    with pytest.raises(FedCreditError, match="no expiry"):
        _run(network)
    error = network.failures[BANK]
    assert isinstance(error, TransportError)
    assert "tax has failed" in error.public
    assert all(entry.sender != TAX for entry in network.transcript)


def test_a_vanished_peer_is_named_within_the_time_out() -> None:
    network = LocalNetwork(_settings(timeout_s=0.2))
    with pytest.raises(TransportError, match=r"tax did not send probe\.tell within 0\.2 s") as caught:
        _run(network, tax=gone())
    assert caught.value.code == "run.timeout"


def test_the_one_at_the_end_of_a_chain_of_waits_is_named() -> None:
    network = LocalNetwork(_settings(timeout_s=0.2))
    with pytest.raises(TransportError, match=r"bank did not send probe\.ask .* \(it waits for tax\)"):
        _run(network, utility=_first(network), bank=_second(network), tax=gone())


async def _first(network: LocalNetwork) -> None:
    await network.channel(UTIL).receive(BANK, Ask)


async def _second(network: LocalNetwork) -> None:
    await asyncio.sleep(0.05)
    await network.channel(BANK).receive(TAX, Tell)


def test_a_peer_that_ended_early_is_named_at_once() -> None:
    network = LocalNetwork(_settings(timeout_s=60))
    with pytest.raises(TransportError, match=r"tax has ended and will not send probe\.tell"):
        _run(network, tax=holder(network.channel(TAX), 1, rounds=1), utility=holder(network.channel(UTIL), 1))


def test_a_computing_peer_is_waited_for(virtual_time: Callable[[float], None]) -> None:
    async def slow(channel: Channel) -> str:
        virtual_time(0.5)
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        return await holder(channel, 10)

    network = LocalNetwork(_settings(timeout_s=0.2))
    assert _run(network, tax=slow(network.channel(TAX)))[BANK] == [0, 110]
    assert network.cpu_seconds[TAX] > network.cpu_seconds[UTIL]


def test_a_message_nobody_asked_for_fails_the_run() -> None:
    async def talkative(channel: Channel) -> str:
        result = await holder(channel, 1)
        await channel.send(BANK, Tell(number=1), spend=Spend("f" * 64, ()))
        return result

    network = LocalNetwork(_settings())
    with pytest.raises(PeerError, match="tax sent bank 1 messages that were never asked for"):
        _run(network, tax=talkative(network.channel(TAX)))


def test_stages_are_reported_and_modelled_time_adds_up() -> None:
    seen: list[tuple[str, str]] = []
    network = LocalNetwork(_settings(latency_ms=60_000, progress=lambda party, stage: seen.append((party, stage))))
    _run(network)
    assert set(seen) == {("bank", "sum"), ("tax", "sum"), ("utility", "sum")}
    assert network.modelled_seconds == pytest.approx(240)


def test_settings_no_run_could_have_are_refused() -> None:
    changes: tuple[dict[str, object], ...] = (
        {"roster": {BANK: Role.LABEL_HOLDER}},
        {"roster": {BANK: Role.LABEL_HOLDER, PartyId("../tax"): Role.FEATURE_HOLDER}},
        {"timeout_s": 0},
    )
    for change in changes:
        with pytest.raises(SpecError):
            _settings(**change)
    network = LocalNetwork(_settings())
    with pytest.raises(SpecError, match="eve"):
        network.channel(PartyId("eve"))
    with pytest.raises(SpecError, match="eve"):
        asyncio.run(network.run_roles({PartyId("eve"): idle()}))
    _run(network)
    with pytest.raises(SpecError, match="before"):
        asyncio.run(network.run_roles({BANK: idle()}))


def test_the_logs_tell_what_was_spent(tmp_path: Path) -> None:
    network = LocalNetwork(_settings(audit_dir=tmp_path))
    _run(network)
    entries = [json.loads(line) for line in (tmp_path / "tax.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries] == [
        "stage", "received", "declared", "sent", "received", "sent", "closed"
    ]  # fmt: skip
    assert entries[3]["spend"] == [["equations", "x0", 1]]
