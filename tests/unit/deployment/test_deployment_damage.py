"""Houses whose files are damaged, gone, rolled back, in use, or whose disk is full: named errors, and no second use."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.audit import read_entries, verify
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.house.consent import deny
from fedcredit.runtime.runs import proposal
from fedcredit.runtime.session import files as session_files
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.session.files import EPHEMERAL, kept_secret, unfinished_files
from fedcredit.runtime.simulate import simulate
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.types import COORDINATOR, PartyId, RunId

BANK, TAX, CUSTOMS = PartyId("bank"), PartyId("tax_office"), PartyId("customs")
RUN = RunId("ab" * 16)
MADE = datetime.now(UTC)
BOOST = {
    "network": {"timeout_s": 2.0},
    "run": {"model": "boost"},
    "boost": {"trees": 2, "depth": 2, "min_child_rows": 20, "min_bin_rows": 40},
    "privacy": {"noise_rows": 4.0},
}


@pytest.fixture
def made(toy: Callable[..., Any]) -> Any:
    return toy()


def folder(made: Any, party: str = "bank") -> Path:
    return Path(made.home(party).state / "runs" / RUN)


def begun(made: Any) -> bytes:
    """An order whose first session has failed after it had begun, so that everything is there."""
    order: bytes = made.order(made.proposal())
    (folder(made, "customs") / "stop").touch()
    ended = made.play_all(order)
    assert not any(one.ok for one in ended.values())
    (folder(made, "customs") / "stop").unlink()
    return order


def assert_fails(made: Any, order: bytes, code: str) -> None:
    finished = made.play(BANK, order)
    assert (finished.ok, finished.code) == (False, code), finished.text
    assert str(made.folder) not in finished.text
    line = made.refusals("bank")[-1]
    assert (line["event"], line["code"]) == ("session failed", code)


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"0", b"1.5", b"99999999999", b"\xff", b"1" * 5000])
def test_a_damaged_count_of_attempts(made: Any, content: bytes) -> None:
    order = begun(made)
    (folder(made) / "attempt").write_bytes(content)
    assert_fails(made, order, "run.attempt")


def test_a_count_of_attempts_that_was_rolled_back(made: Any) -> None:
    """A number used twice would be a key used twice."""
    order = begun(made)
    made.play_all(order, without=["customs"])
    assert (folder(made) / "attempt").read_text() == "2"
    (folder(made) / "attempt").write_text("1")
    assert_fails(made, order, "run.attempt")
    (folder(made) / "attempt").unlink()
    assert_fails(made, order, "run.attempt")
    (folder(made) / "attempt").write_text("2")
    assert all(one.ok for one in made.play_all(order).values())


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, None])
def test_a_damaged_secret(made: Any, content: bytes | None) -> None:
    order = begun(made)
    for name in ("run", EPHEMERAL):
        file = folder(made) / "secrets" / name
        whole = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        if name == EPHEMERAL:
            with pytest.raises(IntegrityError) as caught:
                made.play(BANK, order)
            assert caught.value.code == "run.secret"
            assert str(made.folder) not in caught.value.public
        else:
            assert_fails(made, order, "run.secret")
        file.write_bytes(whole)
    assert all(one.ok for one in made.play_all(order).values())


def test_a_secret_made_anew_does_not_fit(made: Any) -> None:
    order = made.order(made.proposal())
    (folder(made) / "secrets" / EPHEMERAL).write_bytes(bytes(range(32)))
    with pytest.raises(IntegrityError) as caught:
        made.play(BANK, order)
    assert caught.value.code == "order.approval"


def test_two_processes_make_one_secret(made: Any) -> None:
    files = unfinished_files(made.home("bank"), RunId("cd" * 16))
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(kept_secret(files, "x"))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 1
    assert [one.name for one in files.secrets.iterdir()] == ["x"]


@pytest.mark.parametrize("content", [b"", b"x", b"0" * 64])
def test_a_damaged_mark_of_completeness(made: Any, content: bytes) -> None:
    order = begun(made)
    (folder(made) / "complete").write_bytes(content)
    assert_fails(made, order, "run.complete")


def test_a_damaged_audit_log(made: Any) -> None:
    order = begun(made)
    log = folder(made) / "audit" / "bank.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert_fails(made, order, "audit.order")
    log.write_bytes(b"".join(lines).replace(b'"sent"', b'"seen"', 1))
    assert_fails(made, order, "audit.changed")


def test_two_processes_on_one_run(made: Any) -> None:
    order = made.order(made.proposal())
    lock = FolderLock(folder(made))
    with pytest.raises(SpecError) as caught:
        made.play(BANK, order)
    lock.close()
    assert caught.value.code == "run.running"
    assert str(made.folder) not in caught.value.public
    assert not (folder(made) / "failed").exists()
    assert made.refusals("bank")[-1]["code"] == "run.running"


def test_a_house_that_changed_its_mind_between_approval_and_session(made: Any) -> None:
    order = made.order(made.proposal())
    made.change_policy("bank", counterparties=["customs", "coordinator"])
    assert_fails(made, order, "policy.counterparty")
    made.change_policy("bank", counterparties=["tax_office", "customs", "coordinator"], enforce=True)
    assert_fails(made, order, "policy.enforce")
    made.change_policy("bank", enforce=False, any_run=False)
    assert_fails(made, order, "consent.pending")
    deny(made.home("bank"), RUN)
    assert_fails(made, order, "consent.denied")
    made.home("bank").policy.unlink()
    assert_fails(made, order, "policy.expiry")


def test_a_data_source_taken_away_between_approval_and_session(made: Any) -> None:
    order = made.order(made.proposal())
    made.home("bank").node.data.clear()
    assert_fails(made, order, "proposal.data")


def test_records_changed_between_approval_and_session(made: Any) -> None:
    order = made.order(made.proposal())
    file = made.folder / "records" / "bank.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert_records_refused(made, order)
    file.write_text("".join(lines))
    assert all(one.ok for one in made.play_all(order).values())


def test_records_are_remembered_where_approvals_do_not_name_them(made: Any) -> None:
    order = begun(made)
    (folder(made) / "records").write_text("0" * 64)
    assert_records_refused(made, order)


def assert_records_refused(made: Any, order: bytes) -> None:
    ended = made.play_all(order)
    assert (ended[BANK].ok, ended[BANK].code) == (False, "run.records")
    assert {(one.code, one.culprit) for party, one in ended.items() if party != BANK} == {("run.peer-failed", "bank")}


@pytest.mark.parametrize("party", [BANK, COORDINATOR])
@pytest.mark.parametrize("last", ["finished.bin", "secrets", "rename"])
def test_an_end_that_was_cut_off_is_finished(
    made: Any, monkeypatch: pytest.MonkeyPatch, last: str, party: PartyId
) -> None:
    """A process that is killed between its last word and the folder's new place."""
    order = made.order(made.proposal())
    with monkeypatch.context() as cut:
        move = session_files._move

        def cut_off(home: Any, run: RunId, files: Any) -> None:
            if home.party != party:
                return move(home, run, files)
            if last != "finished.bin":
                files.end()
            if last == "rename":
                (files.folder / "attempt").unlink()
            raise KeyboardInterrupt

        cut.setattr(session_files, "_move", cut_off)
        with pytest.raises(KeyboardInterrupt):
            made.play_all(order)
    finished = made.play(party, order)
    assert finished.ok
    home = made.home(party)
    assert not list((home.state / "runs").iterdir())
    verify(home.runs / RUN / "audit" / f"{party}.jsonl", finished.audit_head)
    assert not (home.runs / RUN / "secrets").exists()


def test_books_that_were_closed_need_nobody_else(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order = made.order(made.proposal())
    with monkeypatch.context() as cut:
        signed = proposal.signed_finished

        def full(home: Any, finished: Any) -> bytes:
            if home.party == "bank" and finished.ok:
                raise OSError(errno.ENOSPC, "full")
            return signed(home, finished)

        cut.setattr(session_files, "signed_finished", full)
        ended = made.play_all(order)
    assert (ended[BANK].ok, ended[BANK].code) == (False, "run.storage")
    assert all(one.ok for party, one in ended.items() if party != BANK)
    finished = made.play(BANK, order)  # alone: the coordinator has not even said that the others have ended
    assert finished.ok
    assert finished.messages == ended[BANK].messages == 6


class FullDisk:
    """A disk that takes no more from the n-th write or forced write of one party's thread on, for so many of them."""

    def __init__(self, call: str, at: int, count: int = 1, *, half: bool = False) -> None:
        self.call, self.at, self.count, self.half = call, at, max(count, 2 if half else 1), half
        self.seen = 0
        self.victim: int | None = None
        self.real = getattr(os, call)

    def __call__(self, file: int, *content: Any) -> Any:
        if threading.get_ident() == self.victim:
            self.seen += 1
            if self.at <= self.seen < self.at + self.count:
                if self.half and content and self.seen == self.at:
                    return self.real(file, bytes(content[0])[: max(1, len(content[0]) // 2)])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(file, *content)


def on_a_full_disk(made: Any, order: bytes, disk: FullDisk, party: PartyId) -> Any:
    """How a session of everyone ends while one party's disk is full for a moment."""
    play = made.play

    def played(one: PartyId, given: bytes) -> Any:
        if one == party:
            disk.victim = threading.get_ident()
        return play(one, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, disk.call, disk)
        patch.setattr(made, "play", played)
        return made.play_all(order)


def check_log(made: Any, party: PartyId) -> None:
    """What has left is in the log: every frame of the party that the relay has seen, by its link."""
    runs = [made.home(party).runs / RUN, folder(made, party)]
    log = next(one for one in runs if one.exists()) / "audit" / f"{party}.jsonl"
    data = log.read_bytes() if log.exists() else b""
    log.write_bytes(data[: data.rfind(b"\n") + 1]) if data else None
    sent = [one["recipient"] for one in read_entries(log) if one["event"] == "sent"] if data else []
    for other in made.homes:
        frames = [one for one in made.hub.seen if (one.sender, one.recipient) == (party, other) and one.sequence]
        assert sent.count(other) >= len(frames)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "half"), [("write", False), ("write", True), ("fsync", False)])
@pytest.mark.parametrize("at", [1, 4, 8, 13, 19, 26])
def test_a_disk_that_is_full_for_a_moment(made: Any, call: str, half: bool, at: int) -> None:
    order = made.order(made.proposal(made=MADE))
    ended = on_a_full_disk(made, order, FullDisk(call, at, half=half), BANK)
    check_log(made, BANK)
    if not ended[BANK].ok:
        assert ended[BANK].code in {"run.storage", "audit.write"}
    over = any(one.ok for one in ended.values())
    again = made.play_all(made.order(made.proposal(made=MADE), ended=True) if over else order)
    assert all(one.ok for one in again.values()), again
    assert verify(made.home("bank").runs / RUN / "audit" / "bank.jsonl").entries > 6


def test_a_disk_that_stays_full(made: Any) -> None:
    order = made.order(made.proposal())
    ended = on_a_full_disk(made, order, FullDisk("write", 1, 10**9), BANK)
    assert (ended[BANK].ok, ended[BANK].code) == (False, "run.storage")
    assert ended[BANK].text == "the house cannot read or write its own files (ENOSPC)"
    assert not [one for one in made.hub.seen if one.sender == BANK]
    assert all(one.ok for one in made.play_all(order).values())


def test_a_full_disk_denies_a_proposal_by_name(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        decision = made.consider(BANK, made.proposal())
    assert (decision.state, decision.code) == ("denied", "run.storage")
    assert made.consider(BANK, made.proposal()).state == "approved"


def test_what_nobody_foresaw_ends_by_name_and_is_told_to_the_others(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def odd(node: Any, _: Any) -> None:
        if node._party == "tax_office":
            raise KeyError("E00042 is bad")

    monkeypatch.setattr(node_session.Node, "_role", odd)
    ended = made.play_all(made.order(made.proposal()))
    assert (ended[TAX].ok, ended[TAX].code) == (False, "run.internal")
    assert {(one.code, one.culprit) for party, one in ended.items() if party != TAX} == {
        ("run.peer-failed", "tax_office")
    }
    everything = json.dumps([[one.text, one.code] for one in ended.values()]) + str(made.refusals("tax_office"))
    assert "E00042" not in everything
    assert "KeyError at test_deployment_damage.py" in made.refusals("tax_office")[-1]["text"]


@pytest.mark.slow
@pytest.mark.parametrize(("call", "at"), [("write", 20), ("write", 45), ("fsync", 30), ("write", 70), ("fsync", 60)])
@pytest.mark.parametrize("party", [BANK, TAX])
def test_the_model_is_the_same_after_a_full_disk(
    trial: Callable[..., Any], tmp_path: Path, party: PartyId, call: str, at: int
) -> None:
    made = trial(rows=300, sections=BOOST)
    order = made.order(made.proposal(made=MADE))
    disk = FullDisk(call, at, half=call == "write")
    ended = on_a_full_disk(made, order, disk, party)
    assert disk.seen >= at
    assert (ended[party].ok, ended[party].code in {"run.storage", "audit.write"}) == (False, True), ended
    check_log(made, party)
    over = any(one.ok for one in ended.values())
    again = made.play_all(made.order(made.proposal(made=MADE), ended=True) if over else order)
    assert all(one.ok for one in again.values()), again
    simulated = simulate(made.loaded, tmp_path / "out")
    for one in made.spec.parties:
        (mine,) = (made.homes[one].runs / RUN / "model" / one).glob("*.json")
        assert mine.read_bytes() == (simulated.out / "model" / one / mine.name).read_bytes()


def test_a_damaged_checkpoint_of_a_real_run(trial: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(rows=300, sections=BOOST)
    order = made.order(made.proposal())
    save = FileCheckpoints.save

    def saved(checkpoints: FileCheckpoints, content: bytes) -> None:
        save(checkpoints, content)
        if checkpoints._path.name == "bank":
            raise OSError(errno.EIO, "the power goes")

    with monkeypatch.context() as patch:
        patch.setattr(FileCheckpoints, "save", saved)
        made.play_all(order)
    file = folder(made, "bank") / "checkpoints" / "bank"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        file.write_bytes(damaged)
        ended = made.play_all(order)
        assert (ended[BANK].ok, ended[BANK].code) == (False, "checkpoint.damaged")
        assert {one.culprit for party, one in ended.items() if party != BANK} == {"bank"}
    file.write_bytes(whole)
    assert all(one.ok for one in made.play_all(order).values())
