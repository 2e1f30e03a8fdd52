"""What a node counts of its own files, and what the coordinator makes of the exchange's snapshots."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from fedcredit.errors import SpecError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.runtime.daemon.parts import ExchangeParts, server_limits
from fedcredit.runtime.daemon.tally import Tally, ledger_use, run_counts, run_stage
from fedcredit.runtime.exchange.server import ExchangeServer, ExchangeSnapshot, RunSnapshot
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.settings import CoordinatorSettings
from fedcredit.runtime.hybrid.networks import network_run
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration

ONE, TWO = RunId("1" * 32), RunId("2" * 32)


def entry(kind: str, recipient: str, size: int, event: str = "sent") -> str:
    return json.dumps({"event": event, "kind": kind, "recipient": recipient, "bytes": size, "line": 1}) + "\n"


def log_of(folder: Path) -> Path:
    path = folder / "audit" / "bank.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_traffic_is_counted_once_while_it_grows_and_moves(tmp_path: Path) -> None:
    tally, live = Tally(tmp_path, PartyId("bank")), tmp_path / "state" / "runs" / ONE
    log = log_of(live)
    log.write_text(entry("bin.ask", "tax", 100) + entry("bin.ask", "tax", 5, "received") + "no json\n")
    assert [(one.protocol, one.party, one.messages, one.bytes) for one in tally.look()] == [("bin", "tax", 1, 100)]
    with log.open("a") as file:
        file.write(entry("bin.more", "tax", 10) + entry("group_sum.ask", "utility", 7)[:-4])
    assert [(one.protocol, one.messages, one.bytes) for one in tally.look()] == [("bin", 2, 110)]
    with log.open("a") as file:
        file.write(entry("group_sum.ask", "utility", 7)[-4:])
    (tmp_path / "runs").mkdir()
    live.rename(tmp_path / "runs" / ONE)
    (tmp_path / "runs" / ONE / "summary.json").write_text(json.dumps({"seconds": {"bin": 2.0, "total": 9.0}}))
    for _ in range(2):
        found = {(one.protocol, one.party): (one.messages, one.bytes) for one in tally.look()}
        assert found == {("bin", "tax"): (2, 110), ("group_sum", "utility"): (1, 7)}
        assert tally.stage_seconds == {"bin": 2.0}


def test_runs_by_what_the_house_has_of_them(tmp_path: Path) -> None:
    assert run_counts(tmp_path) == {"proposed": 0, "running": 0, "failed": 0, "finished": 0}
    proposals, live = tmp_path / "state" / "proposals", tmp_path / "state" / "runs"
    proposals.mkdir(parents=True)
    for digit in "12345":
        (proposals / f"{digit * 32}.json").touch()
        (proposals / f"{digit * 32}.spec.json").touch()
    for digit in "23":
        (live / (digit * 32)).mkdir(parents=True)
    (live / ("3" * 32) / "failed").touch()
    (tmp_path / "runs" / ("4" * 32)).mkdir(parents=True)
    assert run_counts(tmp_path) == {"proposed": 2, "running": 1, "failed": 1, "finished": 1}


def test_the_stage_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "runs" / ONE
    assert run_stage(tmp_path, ONE) == ""
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"stage": "boost", "done": 3, "total": 20, "time": "x"}))
    assert run_stage(tmp_path, ONE) == "boost 3 of 20"
    (folder / "progress.json").write_text(json.dumps({"stage": "align", "done": None, "total": None, "time": "x"}))
    assert run_stage(tmp_path, ONE) == "align"


def test_the_ledger_beside_its_caps(tmp_path: Path) -> None:
    assert ledger_use(tmp_path) == []
    for run in (ONE, TWO):
        (tmp_path / "runs" / run).mkdir(parents=True)
    (tmp_path / "state").mkdir()
    basis = Basis(n_eff=10_000, n_bad=1_000)
    with Ledger(tmp_path / "state" / "ledger.sqlite", CapRules()) as ledger:
        cost = Cost(kind=CostKind.EQUATIONS, feature="sales", amount=2.0)
        ledger.declare(ONE, PartyId("bank"), Declaration(purpose="bin", data_version="v", basis=basis, costs=(cost,)))
    found = {(one.counterparty, one.account): one for one in ledger_use(tmp_path)}
    accounts = {"bins_returned", "equations", "ids_asked", "row_bits"}
    assert set(found) == {("bank", account) for account in accounts}
    assert all(one.cap for one in found.values())
    assert "sales" not in repr(found)


def test_networks_of_a_run_are_counted_with_it(tmp_path: Path) -> None:
    run = tmp_path / "runs" / ONE
    for place in ("tax.jsonl", "bank_1/tax.jsonl", "bank_2/tax.jsonl"):
        log = run / "audit" / place
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("" if place == "tax.jsonl" else entry("bin.ask", place[:6], 100))
    tally = Tally(tmp_path, PartyId("tax"))
    assert tally.look() == tally.look()
    assert [(one.party, one.messages, one.bytes) for one in tally.look()] == [("bank_1", 1, 100), ("bank_2", 1, 100)]
    (tmp_path / "state").mkdir()
    basis = Basis(n_eff=10_000, n_bad=1_000)
    with Ledger(tmp_path / "state" / "ledger.sqlite", CapRules()) as ledger:
        cost = Cost(kind=CostKind.EQUATIONS, feature="sales", amount=2.0)
        declared = Declaration(purpose="bin", data_version="v", basis=basis, costs=(cost,))
        for bank in ("bank_1", "bank_2"):
            ledger.declare(network_run(ONE, bank), PartyId(bank), declared)
    assert {one.counterparty for one in ledger_use(tmp_path)} == {"bank_1", "bank_2"}


@dataclass
class Server:
    """Gives the snapshots it is told to give."""

    runs: dict[RunId, RunSnapshot] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def snapshot(self) -> ExchangeSnapshot:
        return ExchangeSnapshot(runs=dict(self.runs), calls=0, refused=self.refused)

    def open_run(self, run: RunId, _: object) -> None:
        self.calls.append(f"open {run[0]}")

    def close_run(self, run: RunId) -> None:
        self.calls.append(f"close {run[0]}")

    def stop_run(self, run: RunId, reason: str) -> None:
        self.calls.append(f"stop {run[0]} {reason}")


def room(connected: Mapping[str, int], **other: Any) -> RunSnapshot:
    values: dict[str, Any] = {
        "members": ("bank", "tax"),
        "connected": connected,
        "stopped": "",
        "stored": 0,
        "most_stored": 0,
        "frames": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "undelivered": 0,
    }
    return RunSnapshot(**{**values, **other})


def test_the_exchange_is_told_by_comparing_what_it_says() -> None:
    server = Server()
    parts = ExchangeParts(cast("ExchangeServer", server))
    assert parts.figures()[0] == []
    server.runs = {ONE: room({"bank": 1}, bytes_in=10, bytes_out=20, stored=5)}
    peers, counts = parts.figures()
    assert {one.party: one.connected for one in peers} == {"bank": True, "tax": False}
    assert (counts.runs, counts.queue_bytes, counts.received_bytes, counts.sent_bytes) == (1, 5, 10, 20)
    assert counts.reconnects == 0
    since = next(one.since for one in peers if one.party == "bank")
    server.runs = {ONE: room({"bank": 1, "tax": 1}, bytes_in=15)}
    peers, counts = parts.figures()
    assert next(one.since for one in peers if one.party == "bank") == since
    assert counts.reconnects == 0
    server.runs = {ONE: room({"tax": 1}, bytes_in=15)}
    parts.figures()
    server.runs = {ONE: room({"bank": 1, "tax": 2}, bytes_in=15)}  # one came back, the other was started again
    assert parts.figures()[1].reconnects == 2
    server.runs = {TWO: room({}, bytes_in=1)}
    peers, counts = parts.figures()
    assert {one.run for one in peers} == {TWO}
    assert (counts.received_bytes, counts.reconnects) == (16, 2)
    server.runs, server.refused = {}, {"exchange.busy": 3}
    counts = parts.figures()[1]
    assert (counts.received_bytes, counts.runs, counts.refused) == (16, 0, {"exchange.busy": 3})


def test_a_run_that_was_stopped_is_opened_afresh() -> None:
    server = Server({ONE: room({}, stopped="by ops"), TWO: room({})})
    parts = ExchangeParts(cast("ExchangeServer", server))

    async def calls() -> None:
        await parts.open_run(ONE, [PartyId("bank")])
        await parts.open_run(TWO, [PartyId("bank")])
        await parts.stop_run(ONE, "why")

    asyncio.run(calls())
    assert server.calls == ["close 1", "open 1", "open 2", "stop 1 why"]


def test_all_runs_together_hold_no_more_than_the_settings_say() -> None:
    class Settings:
        def __init__(self, **own: int) -> None:
            self.coordinator = CoordinatorSettings.model_validate({"party": "coordinator", "exchange": own})

    limits = server_limits(cast("Home", Settings(max_stored_bytes=1 << 30, max_streams=7)))
    assert limits.run_window * limits.max_runs <= 1 << 30
    assert limits.max_streams == 7
    assert server_limits(cast("Home", Settings(max_run_bytes=8 << 20))).run_window == 8 << 20
    with pytest.raises(SpecError, match=r"run_window|link_window"):
        server_limits(cast("Home", Settings(max_stored_bytes=1 << 20)))
