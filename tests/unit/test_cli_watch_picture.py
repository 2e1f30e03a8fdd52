"""The live picture of a run: where it is, since when, how much went by, who is away, who is waited for."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from rich.console import Console

from fedcredit.cli import run_watch
from fedcredit.runtime.runs.operator_api import EventsReply, EventView, LineView, RunView, TrafficView

RUN = "5f2a81c0" * 4


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def reply(state: str, traffic: TrafficView | None, *events: EventView) -> EventsReply:
    made = dict.fromkeys(("spec_digest", "data", "flower_run", "continues"), "")
    run = RunView(run=RUN, name="march", model="boost", state=state, detail="session orders sent", created=ago(200),
                  updated=ago(100), parties=["bank", "tax_office"], **made)  # fmt: skip
    return EventsReply(run=run, events=list(events), more=False, traffic=traffic)


class Asked:
    """A client that has one answer."""

    def __init__(self, answer: EventsReply) -> None:
        self.answer = answer

    def events(self, _run: str, _after: int) -> EventsReply:
        return self.answer


def picture(answer: EventsReply) -> str:
    watch = run_watch._Watch(cast("Any", Asked(answer)), RUN, json=False)
    watch._live = cast("Any", type("Live", (), {"update": lambda *_a, **_k: None})())
    watch._look()
    console = Console(file=io.StringIO(), width=100)
    console.print(watch._picture(answer.run))
    text = cast("io.StringIO", console.file).getvalue()
    assert max(map(len, text.splitlines())) <= 100
    return text


def event(party: str, what: str, seconds: float) -> EventView:
    return EventView(number=1, time=ago(seconds), party=party, event=what, text=f"{party} {what}")


def test_a_run_that_goes_on_shows_bytes_lines_and_whom_they_wait_for() -> None:
    lines = [
        LineView(party="bank", connected=True, seconds=5, waiting_for="tax_office"),
        LineView(party="coordinator", connected=True, seconds=5, waiting_for=""),
        LineView(party="tax_office", connected=False, seconds=75, waiting_for=""),
    ]
    traffic = TrafficView(bytes_in=14_120_000, lines=lines)
    rows = picture(reply("running", traffic, event("bank", "session", 70))).splitlines()
    assert "march (boost)" in rows[0]
    assert "3 min 20 s" in rows[0]
    assert "14.1 MB relayed" in rows[0]
    assert "running" in rows[1]
    bank, tax = (next(row for row in rows if row.startswith(name)) for name in ("bank", "tax_office"))
    assert bank.split()[1:] == ["session", "1", "min", "10", "s", "up", "tax_office"]
    assert "AWAY 1 min 15 s" in tax
    assert any(row.startswith("coordinator") for row in rows)


def test_the_clock_of_a_run_that_has_ended_stands_still() -> None:
    text = picture(reply("finished", None, event("bank", "finished", 100)))
    assert "1 min 40 s" in text.splitlines()[0]
    assert "relayed" not in text
    assert "AWAY" not in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 00 s"), (3725, "1 h 02 min"), (90000, "1 d 1 h")],
)
def test_times_are_told_for_people(seconds: float, words: str) -> None:
    assert run_watch._lasting(seconds) == words


def test_what_is_no_moment_takes_no_time() -> None:
    assert run_watch._seconds("yesterday", None) == 0
    assert run_watch._seconds("2026-01-01", None) == 0
