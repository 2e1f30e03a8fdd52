"""The run registry: legal moves only, events that stay, two processes at once, kills at any moment."""

from __future__ import annotations

import itertools
import json
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedcredit.errors import BoundError, IntegrityError, SpecError
from fedcredit.runtime.runs.registry import ACTIVE, ENDED, Registry, RunState
from fedcredit.types import PartyId, RunId

SPEC = json.dumps({"party": [{"name": "bank"}, {"name": "tax_office"}], "run": {"name": "first"}})
# from → to, as the life of a run is described; written out here once more on purpose
LEGAL = {
    "submitted": "proposing failed stopping stopped",
    "proposing": "waiting running failed stopping stopped",
    "waiting": "proposing running failed stopping stopped",
    "running": "proposing finished failed stopping stopped",
    "stopping": "finished failed stopped",
    "finished": "",
    "failed": "",
    "stopped": "",
}
WAY = {
    "submitted": "",
    "proposing": "proposing",
    "waiting": "proposing waiting",
    "running": "proposing running",
    "finished": "proposing running finished",
    "failed": "failed",
    "stopping": "stopping",
    "stopped": "stopped",
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    book = Registry(tmp_path / "state" / "registry.sqlite")
    yield book
    book.close()


def submit(registry: Registry, name: str = "first") -> RunId:
    return registry.submit(SPEC, name, "d" * 64, "scorecard", "loans")


def brought_to(registry: Registry, state: str) -> RunId:
    run = submit(registry)
    for step in WAY[state].split():
        registry.set_state(run, step)
    assert registry.get(run).state == state
    return run


def test_a_submitted_run_is_what_was_given(registry: Registry) -> None:
    run = submit(registry)
    record = registry.get(run)
    assert len(run) == 32
    assert int(run, 16) >= 0
    assert (record.name, record.spec_digest, record.model, record.data) == ("first", "d" * 64, "scorecard", "loans")
    assert record.parties == ("bank", "tax_office")
    assert record.spec_json == SPEC
    assert (record.state, record.flower_run, record.continues) == (RunState.SUBMITTED, "", "")
    assert [(one.event, one.text) for one in registry.events(run)] == [("state", "submitted")]


@pytest.mark.parametrize(("start", "to"), list(itertools.product(LEGAL, LEGAL)))
def test_only_legal_moves(registry: Registry, start: str, to: str) -> None:
    run = brought_to(registry, start)
    before = registry.events(run)
    if to in LEGAL[start].split():
        registry.set_state(run, to, "why")
        assert (registry.get(run).state, registry.get(run).detail) == (to, "why")
        assert registry.events(run)[-1].text == f"{to}: why"
    elif to == start:
        registry.set_state(run, to, "other words")
        assert registry.get(run).detail == "other words"
    else:
        with pytest.raises(SpecError, match=f"{start}, cannot become {to}"):
            registry.set_state(run, to)
        assert registry.get(run).state == start
        assert registry.events(run) == before


def test_states_are_active_ended_or_submitted() -> None:
    assert {*ACTIVE, *ENDED, RunState.SUBMITTED} == set(RunState)
    assert not ACTIVE & ENDED


@pytest.mark.parametrize("state", sorted(LEGAL))
def test_resume_is_for_failed_and_stopped_runs(registry: Registry, state: str) -> None:
    run = brought_to(registry, state)
    registry.launched(run, "7")
    if state in {"failed", "stopped"}:
        registry.resume(run)
        assert (registry.get(run).state, registry.get(run).flower_run) == (RunState.SUBMITTED, "")
    else:
        with pytest.raises(SpecError, match="only a failed or stopped run"):
            registry.resume(run)


@pytest.mark.parametrize(
    ("state", "then"),
    [
        ("proposing", "submitted"),
        ("waiting", "submitted"),
        ("running", "submitted"),
        ("stopping", "stopped"),
        ("submitted", "submitted"),
    ],
)
def test_a_run_whose_driver_is_gone_is_driven_again(registry: Registry, state: str, then: str) -> None:
    run = brought_to(registry, state)
    registry.launched(run, "7")
    registry.requeue(run, "the driver ended")
    assert registry.get(run).state == then
    assert registry.get(run).flower_run == ("7" if then == "stopped" else "")


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_run_that_has_ended_is_not_driven_again(registry: Registry, state: str) -> None:
    with pytest.raises(SpecError, match="nothing is left"):
        registry.requeue(brought_to(registry, state), "")


def test_a_resumed_run_is_proposed_anew_and_a_lost_one_is_not(tmp_path: Path) -> None:
    times = iter(datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(60))
    registry = Registry(tmp_path / "registry.sqlite", lambda: next(times))
    run, other = submit(registry), submit(registry)
    created = registry.get(run).created
    registry.set_state(run, "proposing")
    registry.requeue(run, "lost")
    assert registry.get(run).created == created
    registry.set_state(run, "failed")
    registry.resume(run)
    assert registry.get(run).created > created
    assert [one.run for one in registry.runs()] == [run, other]
    registry.close()


def test_stop_at_once_where_nothing_carries_it(registry: Registry) -> None:
    run = submit(registry)
    assert registry.stop(run, "by the operator") is RunState.STOPPED
    assert registry.stop(run) is RunState.STOPPED
    assert registry.get(run).detail == "by the operator"


@pytest.mark.parametrize("state", ["submitted", "proposing", "waiting", "running", "stopping"])
def test_stop_of_a_carried_run_waits_for_its_driver(registry: Registry, state: str) -> None:
    run = brought_to(registry, state)
    registry.launched(run, "7")
    assert registry.stop(run) is RunState.STOPPING
    count = len(registry.events(run))
    assert registry.stop(run) is RunState.STOPPING
    assert len(registry.events(run)) == count


def test_a_finished_run_is_not_stopped(registry: Registry) -> None:
    run = brought_to(registry, "finished")
    assert registry.stop(run) is RunState.FINISHED


def test_events_go_on_after_a_number_and_stay(registry: Registry, tmp_path: Path) -> None:
    run, other = submit(registry), submit(registry)
    registry.event(run, "bank", "approved", "x" * 2000)
    registry.event(other, "bank", "approved", "not this one")
    first, second = registry.events(run)
    assert registry.events(run, after=first.number) == [second]
    assert registry.events(run, after=second.number) == []
    assert registry.events(run, limit=1) == [first]
    assert len(second.text) == 1024
    assert second.time.endswith("Z")
    with sqlite3.connect(tmp_path / "state" / "registry.sqlite") as db:
        for statement in ("DELETE FROM events", "UPDATE events SET text = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="events are"):
                db.execute(statement)
    db.close()


def test_news_of_all_runs(registry: Registry) -> None:
    assert registry.last_event() == 0
    run, other = submit(registry), submit(registry)
    registry.event(other, "bank", "approved", "")
    assert [(one, event.event) for one, event in registry.news()] == [
        (run, "state"),
        (other, "state"),
        (other, "approved"),
    ]
    assert [event.number for _, event in registry.news(after=2)] == [registry.last_event()]
    assert registry.news(after=registry.last_event()) == []


def test_a_cut_holds_until_the_run_is_submitted_again(registry: Registry) -> None:
    run = submit(registry)
    assert registry.was_cut(run) is None
    registry.set_state(run, RunState.PROPOSING)
    registry.cut(run, "bank is gone")
    registry.set_state(run, RunState.FAILED, "bank is gone")
    assert registry.was_cut(run) == "bank is gone"
    registry.resume(run)
    assert registry.was_cut(run) is None


def test_outcomes_are_kept_byte_for_byte(registry: Registry) -> None:
    run = submit(registry)
    registry.outcome(run, PartyId("tax_office"), b"\x00first")
    registry.outcome(run, PartyId("tax_office"), b"\x00last")
    registry.outcome(run, PartyId("bank"), b"bank")
    assert registry.outcomes(run) == {"bank": b"bank", "tax_office": b"\x00last"}
    with pytest.raises(BoundError, match="outcome of bank"):
        registry.outcome(run, PartyId("bank"), bytes((1 << 24) + 1))


def test_runs_by_state_and_by_the_beginning_of_a_name(registry: Registry) -> None:
    runs = [submit(registry, f"run-{number}") for number in range(3)]
    registry.set_state(runs[1], RunState.FAILED)
    assert [one.run for one in registry.runs()] == runs
    assert [one.run for one in registry.runs(RunState.SUBMITTED)] == [runs[0], runs[2]]
    assert registry.counts() == {"submitted": 2, "failed": 1}
    assert registry.find(runs[0]) == runs[0]
    assert registry.find(runs[0][:12]) == runs[0]
    for wrong in ("", "*", "0" * 32, "nothing"):
        with pytest.raises(SpecError, match="no such run"):
            registry.find(wrong)


def test_unknown_runs_are_named(registry: Registry) -> None:
    for call in (registry.get, registry.stop, registry.resume, lambda run: registry.event(run, "", "a", "b")):
        with pytest.raises(SpecError, match="no such run"):
            call(RunId("0" * 32))
    with pytest.raises(SpecError, match="no such run"):
        registry.submit(SPEC, "x", "d", "m", "d", continues="0" * 32)


def test_a_spec_that_is_none_is_refused(registry: Registry) -> None:
    for text in ("", "{}", "[]", '{"party": 3}'):
        with pytest.raises(SpecError, match="names its parties"):
            registry.submit(text, "x", "d", "m", "d")
    with pytest.raises(BoundError):
        registry.submit(" " * (1 << 20) + "{}", "x", "d", "m", "d")
    assert registry.runs() == []


def test_only_its_owner_reads_it(registry: Registry, tmp_path: Path) -> None:
    submit(registry)
    for path in (tmp_path / "state").glob("*.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 10)
    with pytest.raises(IntegrityError, match="text is no run registry"):
        Registry(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    with pytest.raises(IntegrityError, match="of version 1"):
        Registry(tmp_path / "other")


DRIVER = """
import sys
from pathlib import Path
from fedcredit.runtime.runs.registry import Registry
Registry(Path(sys.argv[1])).set_state(sys.argv[2], "proposing")
print(flush=True)
sys.stdin.read()
"""


def test_one_process_drives_a_run_and_its_death_is_seen(registry: Registry, tmp_path: Path) -> None:
    run, path = submit(registry), tmp_path / "state" / "registry.sqlite"
    assert registry.driven(run) is None
    command = [sys.executable, "-c", DRIVER, str(path), run]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert registry.driven(run) is True
    registry.set_state(run, "waiting")  # whoever only helps need not drive
    with pytest.raises(SpecError, match="another process drives it"):
        registry.set_state(run, "proposing")
    assert registry.get(run).state == "waiting"
    process.kill()
    process.communicate()
    assert registry.driven(run) is False
    registry.set_state(run, "proposing")
    registry.set_state(run, "proposing", "again")
    assert registry.driven(run) is True
    registry.set_state(run, "failed")
    assert registry.driven(run) is None


WRITER = """
import sys
from pathlib import Path
from fedcredit.runtime.runs.registry import Registry
book = Registry(Path(sys.argv[1]))
for number in range(int(sys.argv[4])):
    book.event(sys.argv[2], sys.argv[3], "step", str(number))
"""


def writer(path: Path, run: RunId, party: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), run, party, str(count)])


def test_two_processes_write_at_once(registry: Registry, tmp_path: Path) -> None:
    run, path = submit(registry), tmp_path / "state" / "registry.sqlite"
    writers = [writer(path, run, name, 40) for name in ("bank", "tax")]
    for number in range(40):
        registry.event(run, "daemon", "step", str(number))
    for one in writers:
        assert one.wait(30) == 0
    events = registry.events(run)
    for name in ("bank", "tax", "daemon"):
        assert [one.text for one in events if one.party == name] == [str(number) for number in range(40)]


def test_a_killed_writer_leaves_whole_events(registry: Registry, tmp_path: Path) -> None:
    run, path = submit(registry), tmp_path / "state" / "registry.sqlite"
    process = writer(path, run, "bank", 1_000_000)
    deadline = time.monotonic() + 20
    while len(registry.events(run)) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    texts = [one.text for one in registry.events(run, limit=10**7) if one.party == "bank"]
    assert len(texts) >= 9
    assert texts == [str(number) for number in range(len(texts))]
    registry.set_state(run, RunState.PROPOSING)  # nobody holds the file
