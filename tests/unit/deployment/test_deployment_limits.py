"""What a house's policy allows in a deployed run, counted over all its processes, and audited before it leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcredit.governance.audit import read_entries, verify
from fedcredit.types import PartyId, RunId

TAX = PartyId("tax_office")
RUN = RunId("ab" * 16)
BOOST = {
    "run": {"model": "boost"},
    "boost": {"trees": 2, "depth": 2, "min_child_rows": 20, "min_bin_rows": 40},
    "privacy": {"noise_rows": 4.0},
    "network": {"timeout_s": 2.0},
}


def log_of(made: Any, party: str) -> Path:
    places = [made.home(party).runs / RUN, made.home(party).state / "runs" / RUN]
    return Path(next(one for one in places if one.exists()) / "audit" / f"{party}.jsonl")


def events(made: Any, party: str, event: str) -> list[dict[str, Any]]:
    return [one for one in read_entries(log_of(made, party)) if one["event"] == event]


def model_of(made: Any, party: str) -> dict[str, Any]:
    (file,) = (made.home(party).runs / RUN / "model" / party).glob("*.json")
    return dict(json.loads(file.read_text("utf-8")))


def test_limits_are_those_of_the_run_and_not_of_a_process(trial: Callable[..., Any]) -> None:
    made = trial(rows=300, sections=BOOST)
    order = made.order(made.proposal())
    made.change_policy("tax_office", max_run_messages=7)
    for _ in range(2):  # again: what an earlier process sent is counted
        before = len(made.hub.seen)
        ended = made.play_all(order)
        assert (ended[TAX].ok, ended[TAX].code) == (False, "policy.limit")
        assert {(one.code, one.culprit) for party, one in ended.items() if party != TAX} == {
            ("run.peer-failed", "tax_office")
        }
        assert events(made, "tax_office", "refused")[-1]["code"] == "policy.limit"
        assert len(made.hub.seen) > before
    sent = [one for one in events(made, "tax_office", "sent") if not one["kind"].startswith("run.")]
    assert 0 < len(sent) <= 7 - 3  # the three words of the beginning count, and are never refused themselves
    made.change_policy("tax_office", max_run_messages=1000)
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values()), ended
    assert ended[TAX].messages == len(events(made, "tax_office", "sent"))
    assert ended[TAX].attempts == 3
    assert len(events(made, "tax_office", "attempt")) == 3


def test_a_run_that_was_limited_gives_the_same_model(trial: Callable[..., Any], tmp_path: Path) -> None:
    made = trial(rows=300, sections=BOOST)
    order = made.order(made.proposal())
    made.change_policy("tax_office", kind_messages={"group_sum.answer": 2})
    ended = made.play_all(order)
    assert (ended[TAX].code, "group_sum.answer" in ended[TAX].text) == ("policy.limit", True)
    made.change_policy("tax_office", kind_messages={})
    assert all(one.ok for one in made.play_all(order).values())
    from fedcredit.runtime.simulate import simulate

    simulated = simulate(made.loaded, tmp_path / "out").out
    for party in made.spec.parties:
        (file,) = (simulated / "model" / party).glob("*.json")
        assert model_of(made, party) == json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize(
    "limit",
    [
        {"max_message_bytes": 5000},
        {"max_run_bytes": 9000},
        {"max_run_messages": 0},
        {"kind_messages": {"group_sum.answer": 0}},
        {"messages": ["align.ids"]},
    ],
    ids=str,
)
def test_every_limit_ends_the_session_by_name(trial: Callable[..., Any], limit: dict[str, Any]) -> None:
    made = trial(rows=300, sections=BOOST)
    order = made.order(made.proposal())
    made.change_policy("tax_office", **limit)
    ended = made.play_all(order)
    assert (ended[TAX].ok, ended[TAX].code) == (False, "policy.message" if "messages" in limit else "policy.limit")
    assert not any(one.ok for one in ended.values())
    assert events(made, "tax_office", "refused")[-1]["code"] == ended[TAX].code


def test_nothing_leaves_before_it_is_on_the_disk_of_the_audit_log(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy()
    synced: dict[tuple[int, int], int] = {}
    sync = os.fsync

    def noted(file: int) -> None:
        sync(file)
        status = os.fstat(file)
        synced[status.st_dev, status.st_ino] = status.st_size

    seen: dict[tuple[str, str], int] = {}
    early: list[Any] = []

    def relay(frame: Any) -> list[Any]:
        if frame.sequence:
            log = log_of(made, frame.sender)
            status = log.stat()
            durable = log.read_bytes()[: synced.get((status.st_dev, status.st_ino), 0)]
            lines = [json.loads(one) for one in durable.split(b"\n")[:-1]]
            link = (frame.sender, frame.recipient)
            seen[link] = seen.get(link, 0) + 1
            logged = [one for one in lines if one["event"] == "sent" and one["recipient"] == frame.recipient]
            if len(logged) < seen[link]:
                early.append(frame)
        return [frame]

    made.hub.relay = relay
    monkeypatch.setattr(os, "fsync", noted)
    assert all(one.ok for one in made.play_all(made.order(made.proposal())).values())
    assert len(seen) == 12
    assert early == []


def test_a_log_goes_on_over_attempts_as_one_chain(toy: Callable[..., Any]) -> None:
    made = toy()
    order = made.order(made.proposal())
    made.hub.kill_at[TAX] = 2
    ended = made.play_all(order)
    for party, finished in ended.items():
        log = made.homes[party].runs / RUN / "audit" / f"{party}.jsonl"
        assert verify(log, finished.audit_head).head == finished.audit_head
        numbers = [one["attempt"] for one in read_entries(log) if one["event"] == "attempt"]
        assert numbers == [1, 2]
