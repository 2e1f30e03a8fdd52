"""``fedcredit audit``: exit 0 on a run that holds, 3 and one clear line on the first problem."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    import typer
    from typer.testing import CliRunner

    from fedcredit.cli import audit

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.audit import AuditLog, write_heads
from fedcredit.types import PartyId, RunId


def _invoke(*arguments: str) -> str:
    """Output of a command that succeeds; what `main` turns into one line and exit 3 is raised."""
    app = typer.Typer()
    audit.register(app)
    result = CliRunner().invoke(app, ["audit", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def run(tmp_path: Path) -> Path:
    heads = {}
    for party in (PartyId("bank"), PartyId("tax")):
        log = AuditLog(
            tmp_path / "audit" / f"{party}.jsonl", party, RunId("run-1"), lambda: datetime(2026, 1, 1, tzinfo=UTC)
        )
        log.append(
            "sent",
            {"kind": "probe.ask", "recipient": "hub", "stage": "bin", "bytes": 7, "spend": [["equations", "x0", 2]]},
        )
        heads[party] = log.close().head
    write_heads(tmp_path / "audit", heads)
    return tmp_path


def test_a_run_that_holds_is_said_to_hold(run: Path) -> None:
    assert "bank: 2 entries hold" in _invoke("verify", str(run))
    parsed = json.loads(_invoke("verify", str(run), "--json"))
    assert {party: one["entries"] for party, one in parsed.items()} == {"bank": 2, "tax": 2}


def test_the_first_problem_is_one_line_and_exit_3(run: Path) -> None:
    log = run / "audit" / "tax.jsonl"
    log.write_text(log.read_text().replace('"bytes":7', '"bytes":8'))
    for command in ("verify", "sent", "show"):
        with pytest.raises(IntegrityError) as caught:
            _invoke(command, str(run))
        assert str(caught.value) == "tax.jsonl line 1: the entry was changed after it was written [audit.changed]"
        assert caught.value.exit_code == 3


def test_a_directory_without_logs_is_refused(tmp_path: Path) -> None:
    for command in ("verify", "sent", "show"):
        with pytest.raises(SpecError, match="no run directory"):
            _invoke(command, str(tmp_path))


def test_entries_are_shown_for_everyone_or_one_party(run: Path) -> None:
    everyone = _invoke("show", str(run))
    assert "audit log of bank" in everyone
    assert "audit log of tax" in everyone
    assert "2 equations x0" in everyone
    one = json.loads(_invoke("show", str(run), "--party", "tax", "--json"))
    assert [entry["event"] for entry in one["tax"]] == ["sent", "closed"]
    assert list(one) == ["tax"]
    with pytest.raises(IntegrityError, match="bank, tax"):
        _invoke("show", str(run), "--party", "eve")


def test_what_left_a_house_is_added_up_by_receiver_and_kind(tmp_path: Path) -> None:
    log = AuditLog(
        tmp_path / "audit" / "tax.jsonl", PartyId("tax"), RunId("run-1"), lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )
    for event, kind, other, size in [
        ("sent", "b.answer", "bank", 1000),
        ("sent", "b.answer", "bank", 500),
        ("received", "b.ask", "bank", 9999),
        ("sent", "a.sum", "utility", 3),
        ("sent", "a.sum", "bank", 4),
    ]:
        key = "recipient" if event == "sent" else "sender"
        log.append(event, {"kind": kind, key: other, "stage": "bin", "bytes": size})
    write_heads(tmp_path / "audit", {PartyId("tax"): log.close().head})
    told = json.loads(_invoke("sent", str(tmp_path), "--json"))["tax"]
    assert [tuple(one.values()) for one in told] == [
        ("bank", "a.sum", 1, 4),
        ("bank", "b.answer", 2, 1500),
        ("utility", "a.sum", 1, 3),
    ]
    text = _invoke("sent", str(tmp_path))
    assert "4 messages, 1,507 bytes" in text
    assert "b.ask" not in text
