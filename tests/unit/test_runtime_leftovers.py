"""Lines that a killed process left."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.governance.audit import AuditLog, read_entries, verify_directory
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.runtime.leftovers import (
    HeadroomMemory,
    HeadroomQuestion,
    close_books,
    continue_audit,
    earlier_messages,
    mend_lines,
)
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration

RUN, BANK, TAX = RunId("r"), PartyId("bank"), PartyId("tax")
BASIS = Basis(n_eff=1000, n_bad=300)


class Clock:
    """A second passes at every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.mark.parametrize(
    ("before", "after", "any_line"), [(b"a\nb", b"a\n", True), (b"a\n", b"a\n", True), (b"ab", b"", False)]
)
def test_an_unfinished_line_is_cut_off(tmp_path: Path, before: bytes, after: bytes, any_line: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(before)
    assert mend_lines(path) == any_line
    assert path.read_bytes() == after
    assert not mend_lines(tmp_path / "absent")


def question(*features: str, version: str = "v") -> HeadroomQuestion:
    return HeadroomQuestion(BANK, version, BASIS, CostKind.EQUATIONS, features)


def spend_some(ledger: Ledger) -> None:
    cost = Cost(CostKind.EQUATIONS, "a", 4)
    ledger.declare(RUN, BANK, Declaration(data_version="v", basis=BASIS, costs=(cost,)))


@pytest.mark.parametrize("enforce", [True, False])
def test_answers_are_those_of_the_first_time(tmp_path: Path, enforce: bool) -> None:
    path = tmp_path / "headroom" / "tax.jsonl"
    ledger = Ledger(":memory:", CapRules(enforce=enforce, simulation=True))
    first = HeadroomMemory(path)
    a, other = first.answer(ledger, RUN, question("a", "b")), first.answer(ledger, RUN, question("a", version="w"))
    spend_some(ledger)
    again = first.answer(ledger, RUN, question("a", "b"))  # a second question of the same run has its own answer
    assert again == (a[0] - 4, a[1])
    assert math.isinf(a[0]) != enforce
    path.write_bytes(path.read_bytes() + b'{"question"')
    later = HeadroomMemory(path)
    assert [later.answer(ledger, RUN, question("a", "b")) for _ in range(2)] == [a, again]
    assert later.answer(ledger, RUN, question("a", version="w")) == other
    spend_some(ledger)
    assert later.answer(ledger, RUN, question("a", "b")) == again  # beyond what was asked before, the ledger answers
    ledger.close()


@pytest.mark.parametrize("line", ["{}", "[]", '{"question": "q", "turn": 0, "answer": ["x"]}'])
def test_damaged_answers_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "x").write_text(line + "\n")
    with pytest.raises(IntegrityError, match="x: the file of earlier answers is damaged"):
        HeadroomMemory(tmp_path / "x")


def sent(sequence: int, recipient: PartyId) -> dict[str, object]:
    return {
        "kind": "a.b",
        "recipient": recipient,
        "stage": "bin",
        "sequence": sequence,
        "bytes": 7 + sequence,
        "body_sha256": "00",
    }


def two_logs(folder: Path, clock: Clock) -> dict[PartyId, AuditLog]:
    logs = {party: AuditLog(folder / f"{party}.jsonl", party, RUN, clock, durable=False) for party in (BANK, TAX)}
    logs[TAX].append("sent", sent(0, BANK))
    logs[BANK].append("stage", {"stage": "bin"})
    logs[BANK].append("sent", sent(0, TAX))
    logs[TAX].append("sent", sent(1, BANK))
    return logs


def test_messages_of_earlier_processes_in_their_order(tmp_path: Path) -> None:
    two_logs(tmp_path, Clock())
    found = earlier_messages(tmp_path)
    assert [(one.sender, one.recipient, one.sequence, one.bytes) for one in found] == [
        (TAX, BANK, 0, 7),
        (BANK, TAX, 0, 7),
        (TAX, BANK, 1, 8),
    ]
    assert earlier_messages(tmp_path / "absent") == []
    path = tmp_path / "tax.jsonl"
    path.write_text(path.read_text().replace('"sequence":0', '"sequence":5'))
    with pytest.raises(IntegrityError, match="changed after it was written"):
        earlier_messages(tmp_path)


def test_a_log_says_that_it_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    two_logs(tmp_path, clock)
    path = tmp_path / "tax.jsonl"
    continue_audit(path, TAX, RUN, clock, durable=False).append("stage", {"stage": "score"})
    assert [one["event"] for one in read_entries(path)] == ["sent", "sent", "resumed", "stage"]
    new = tmp_path / "new.jsonl"
    continue_audit(new, TAX, RUN, clock, durable=False).append("stage", {"stage": "score"})
    assert [one["event"] for one in read_entries(new)] == ["stage"]
    assert continue_audit(None, TAX, RUN, clock, durable=False).lines == ()


def test_books_are_closed_wherever_the_kill_was(tmp_path: Path) -> None:
    clock = Clock()
    logs = two_logs(tmp_path, clock)
    head = logs[BANK].close().head
    ledger = Ledger(":memory:")
    for _ in range(2):
        close_books(tmp_path, [BANK, TAX], RUN, [ledger], clock)
        assert verify_directory(tmp_path)[BANK].head == head
    assert [one["event"] for one in read_entries(tmp_path / "tax.jsonl")] == ["sent", "sent", "resumed", "closed"]
    with pytest.raises(Exception, match="this run has ended"):
        spend_some(ledger)
    ledger.close()
