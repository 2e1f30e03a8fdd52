"""The audit log: an honest chain verifies, a broken one names its first bad line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.governance.audit import AuditLog, read_entries, verify, verify_directory, write_heads
from fedcredit.governance.canonical import canonical_json
from fedcredit.types import PartyId, RunId

BANK, RUN = PartyId("bank"), RunId("run-1")


def _clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def _log(path: Path, entries: int = 5, party: PartyId = BANK) -> str:
    log = AuditLog(path, party, RUN, _clock)
    for number in range(entries):
        log.append("sent", {"kind": "probe.ask", "bytes": number})
    return log.close().head


def test_an_honest_log_verifies_and_ends_in_its_head(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    head = _log(path)
    verified = verify(path, head)
    assert (verified.entries, verified.head) == (6, head)
    assert path.stat().st_mode & 0o777 == 0o600
    entries = read_entries(path)
    assert [entry["event"] for entry in entries] == ["sent"] * 5 + ["closed"]
    assert entries[-1]["count"] == 5
    assert entries[0]["time"] == "2026-01-01T00:00:00.000+00:00"


def _change(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b'"bytes":2', b'"bytes":9'), *lines[3:]]


def _rehash(lines: list[bytes]) -> list[bytes]:
    """A changed line whose own hash was made to fit again."""
    import hashlib

    entry = json.loads(_change(lines)[2])
    del entry["hash"]
    entry["hash"] = hashlib.sha256(canonical_json(entry).encode()).hexdigest()
    return [*lines[:2], canonical_json(entry).encode(), *lines[3:]]


def _respace(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'","', b'", "', 1), *lines[1:]]


@pytest.mark.parametrize(
    ("tamper", "line", "code"),
    [
        (_change, 3, "audit.changed"),
        (_rehash, 4, "audit.order"),
        (_respace, 1, "audit.changed"),
        (lambda lines: lines[1:], 1, "audit.order"),
        (lambda lines: [*lines[:2], *lines[3:]], 3, "audit.order"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "audit.order"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "audit.order"),
        (lambda lines: lines[:-1], 5, "audit.truncated"),
        (lambda lines: [*lines, lines[-1]], 7, "audit.trailing"),
        (lambda lines: [*lines, b"more"], 7, "audit.trailing"),
        (lambda lines: [*lines[:3], b"", *lines[3:]], 4, "audit.changed"),
        (lambda lines: [*lines[:3], b"[" * 100_000, *lines[3:]], 4, "audit.changed"),
        (lambda _: [], 1, "audit.truncated"),
    ],
)
def test_a_broken_log_names_its_first_bad_line(
    tmp_path: Path, tamper: Callable[[list[bytes]], list[bytes]], line: int, code: str
) -> None:
    path = tmp_path / "bank.jsonl"
    head = _log(path)
    broken = tamper(path.read_bytes().splitlines())
    path.write_bytes(b"".join(one + b"\n" for one in broken))
    with pytest.raises(IntegrityError, match=rf"^bank\.jsonl line {line}:") as caught:
        verify(path, head)
    assert caught.value.code == code


def test_a_log_cut_inside_its_last_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    head = _log(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="cut off"):
        verify(path, head)


def test_a_log_written_anew_does_not_have_the_published_head(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    head = _log(path)
    path.unlink()
    _log(path, entries=4)
    verify(path)
    with pytest.raises(IntegrityError, match="line 5: the log's head is not the published one"):
        verify(path, head)


def test_an_unfinished_log_is_continued_and_a_closed_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    AuditLog(path, BANK, RUN, _clock).append("sent", {})
    with pytest.raises(IntegrityError, match="without a closing entry"):
        verify(path)
    again = AuditLog(path, BANK, RUN, _clock)
    again.append("sent", {})
    assert verify(path, again.close().head).entries == 3
    with pytest.raises(IntegrityError, match="closed already"):
        AuditLog(path, BANK, RUN, _clock)


def test_the_log_of_another_run_or_party_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "bank.jsonl"
    AuditLog(path, BANK, RUN, _clock).append("sent", {})
    for party, run in ((PartyId("eve"), RUN), (BANK, RunId("run-2"))):
        with pytest.raises(IntegrityError, match="another party or run"):
            AuditLog(path, party, run, _clock)


def test_nothing_follows_the_closing_entry() -> None:
    log = AuditLog(None, BANK, RUN, _clock)
    assert log.close() == log.close()
    with pytest.raises(IntegrityError, match="closed"):
        log.append("sent", {})


def test_a_run_directory_verifies_as_a_whole(tmp_path: Path) -> None:
    heads = {party: _log(tmp_path / f"{party}.jsonl", party=party) for party in (BANK, PartyId("tax"))}
    write_heads(tmp_path, heads)
    assert {party: one.head for party, one in verify_directory(tmp_path).items()} == heads


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "tax.jsonl").unlink(), "tax: the published head has no log"),
        (lambda folder: _log(folder / "eve.jsonl"), "eve: the log has no published head"),
        (lambda folder: (folder / "heads.json").unlink(), "heads"),
        (lambda folder: (folder / "heads.json").write_text("{}"), "a head for every party"),
        (lambda folder: (folder / "heads.json").write_text("[" * 100_000), "heads"),
        (lambda folder: (folder / "heads.json").write_text('{"bank":1,"tax":2}'), "a head for every party"),
    ],
)
def test_a_run_directory_that_lacks_something_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    write_heads(tmp_path, {p: _log(tmp_path / f"{p}.jsonl", party=p) for p in (BANK, PartyId("tax"))})
    spoil(tmp_path)
    with pytest.raises(IntegrityError, match=complaint):
        verify_directory(tmp_path)


def test_one_partys_log_does_not_pass_for_anothers(tmp_path: Path) -> None:
    head = _log(tmp_path / "tax.jsonl", party=BANK)
    write_heads(tmp_path, {PartyId("tax"): head})
    with pytest.raises(IntegrityError, match=r"tax\.jsonl line 1"):
        verify_directory(tmp_path)
