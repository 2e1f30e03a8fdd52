"""The driver of a run over an in-memory courier and a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fedcredit.errors import IntegrityError, PeerError, SpecError, TransportError
from fedcredit.runtime.runs.driver import drive
from fedcredit.runtime.runs.driver_parts import DriverLimits, DriverParts, Ended, Verdict, VerdictKind
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.types import COORDINATOR, PartyId, RunId

BANK, TAX, TELCO = PartyId("bank"), PartyId("tax_office"), PartyId("telco")
PARTIES = (BANK, TAX, TELCO)
LIMITS = DriverLimits(online_s=60, approval_s=3600, missing_s=300, session_s=7200, settle_s=30, stop_s=20, resends=3)

Result = TypeVar("Result")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: it moves the clock on by as much as the loop wanted to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Hours pass in milliseconds."""

    def __init__(self) -> None:
        self._jumps = _JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


async def driven(registry: Registry, people: Town, run: RunId, limits: DriverLimits = LIMITS) -> RunState:
    hears = asyncio.create_task(people.hear(registry, run))
    try:
        return await drive(parts_of(registry, people, limits), run)
    finally:
        hears.cancel()


def in_jumps(work: Awaitable[Result]) -> Result:
    async def whole() -> Result:
        return await work

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(whole())


@dataclass
class After:
    """Something that happens later."""

    seconds: float
    what: bytes | Exception
    then: Callable[[], None] = lambda: None


Script = list[bytes | Exception | After]


def said(**words: Any) -> bytes:
    return json.dumps(words).encode()


APPROVED, PENDING = said(kind="approved"), said(kind="pending", text="waits for its people")
DENIED = said(kind="denied", code="policy.model", text="boosted trees are not allowed here")
DONE = said(ok=True)


def gone() -> TransportError:
    return TransportError("node.unavailable", "its node is not connected")


@dataclass
class Town:
    """Nodes that say what the script says; the last line is repeated."""

    proposals: dict[PartyId, Script]
    sessions: dict[PartyId, Script]
    there: set[PartyId] = field(default_factory=lambda: set(PARTIES))
    asked: list[tuple[PartyId, str]] = field(default_factory=list)
    own: Script = field(default_factory=lambda: [After(40, DONE)])
    orders: list[tuple[PartyId, bytes]] = field(default_factory=list)
    stopped: asyncio.Event | None = None

    async def ask(self, party: PartyId, action: str, payload: bytes, timeout_s: float) -> bytes:
        self.asked.append((party, action))
        if action == "propose":
            assert payload == b"proposal"
        else:
            self.orders.append((party, payload))
        script = (self.proposals if action == "propose" else self.sessions)[party]
        return await asyncio.wait_for(self._say(script), timeout_s)

    async def online(self) -> frozenset[PartyId]:
        return frozenset(self.there)

    async def own_worker(self, order: bytes) -> bytes:
        self.orders.append((COORDINATOR, order))
        return await self._say(self.own)

    async def _say(self, script: Script) -> bytes:
        line = script.pop(0) if len(script) > 1 else script[0]
        seconds, what = (line.seconds, line.what) if isinstance(line, After) else (1.0, line)
        self.stopped = self.stopped or asyncio.Event()
        try:
            await asyncio.wait_for(self.stopped.wait(), seconds)
        except TimeoutError:
            if isinstance(line, After):
                line.then()
            if isinstance(what, Exception):
                raise what from None
            return what
        return said(ok=False, code="run.stopped", text="the run was stopped")

    async def hear(self, registry: Registry, run: RunId) -> None:
        """What the exchange tells everyone once the driver has cut the run."""
        while registry.was_cut(run) is None:  # noqa: ASYNC110 -- as the daemon does
            await asyncio.sleep(1)
        self.stopped = self.stopped or asyncio.Event()
        self.stopped.set()


def town(**changed: Any) -> Town:
    """All approve and finish, but for what is changed."""
    proposals: dict[PartyId, Script] = {party: [APPROVED] for party in PARTIES}
    sessions: dict[PartyId, Script] = {party: [After(40, DONE)] for party in PARTIES}
    proposals.update(changed.pop("proposals", {}))
    sessions.update(changed.pop("sessions", {}))
    return Town(proposals=proposals, sessions=sessions, **changed)


def read_decision(run: RunId, party: PartyId, answer: bytes) -> Verdict:
    try:
        words = json.loads(answer)
        return Verdict(VerdictKind(words["kind"]), words.get("code", ""), words.get("text", ""))
    except ValueError:
        raise PeerError("proposal.decision", "its decision does not decode") from None


def read_finished(run: RunId, party: PartyId, answer: bytes) -> Ended:
    try:
        return Ended(**json.loads(answer))
    except ValueError:
        raise PeerError("session.finished", "its last word does not decode") from None


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    book = Registry(tmp_path / "registry.sqlite")
    yield book
    book.close()


def submitted(registry: Registry, on_missing: str = "stop") -> RunId:
    spec = {"run": {"on_missing": on_missing}, "party": [{"name": party} for party in PARTIES]}
    return registry.submit(json.dumps(spec), "loans", "d" * 64, "scorecard", "loans")


def parts_of(registry: Registry, town: Town, limits: DriverLimits = LIMITS) -> DriverParts:
    def make_order(run: RunId, proposal: bytes, decisions: Mapping[PartyId, bytes], ended: bool) -> bytes:
        assert proposal == b"proposal"
        assert decisions == dict.fromkeys(PARTIES, APPROVED)
        return b"ended order" if ended else b"order"

    def make_continuation(run: RunId, missing: frozenset[PartyId]) -> RunId:
        if BANK in missing:
            raise SpecError("run.no-label-holder", "nobody else holds the label")
        old = registry.get(run)
        return registry.submit(old.spec_json, old.name, old.spec_digest, old.model, old.data, continues=run)

    return DriverParts(
        registry=registry,
        courier=town,
        make_proposal=lambda run: b"proposal",
        read_decision=read_decision,
        make_order=make_order,
        read_finished=read_finished,
        own_worker=town.own_worker,
        make_continuation=make_continuation,
        limits=limits,
    )


def events(registry: Registry, run: RunId) -> list[tuple[str, str]]:
    return [(one.party, one.event) for one in registry.events(run)]


def detail(registry: Registry, run: RunId) -> str:
    return registry.get(run).detail


def test_all_approve_and_finish(registry: Registry) -> None:
    people, run = town(), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED
    assert sorted(people.asked) == sorted((party, action) for party in PARTIES for action in ("propose", "session"))
    assert registry.outcomes(run) == dict.fromkeys((*PARTIES, COORDINATOR), DONE)
    assert [one.text.split(":")[0] for one in registry.events(run) if one.event == "state"] == [
        "submitted",
        "proposing",
        "running",
        "finished",
    ]
    assert registry.was_cut(run) is None


def test_whoever_is_not_connected_is_named(registry: Registry) -> None:
    people, run = town(there={BANK, TELCO}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "not connected within 60 s: tax_office [run.not-connected]"
    assert people.asked == []


def test_a_denial_ends_the_run_with_name_and_reason(registry: Registry) -> None:
    people, run = town(proposals={TAX: [DENIED], TELCO: [After(999, APPROVED)]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "tax_office denied: boosted trees are not allowed here [policy.model]"
    assert all(action == "propose" for _, action in people.asked)
    assert (TAX, "denied") in events(registry, run)


def test_a_pending_decision_is_asked_for_again(registry: Registry) -> None:
    people, run = town(proposals={TAX: [PENDING, PENDING, PENDING, APPROVED]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED
    assert people.asked.count((TAX, "propose")) == 4
    assert people.asked.count((BANK, "propose")) == 1
    assert events(registry, run).count((TAX, "pending")) == 1
    waiting = [one.text for one in registry.events(run) if one.text.startswith("waiting")]
    assert waiting[-1] == "waiting: not approved yet: tax_office"


def test_whoever_does_not_decide_in_time_is_named(registry: Registry) -> None:
    people, run = town(proposals={TAX: [PENDING]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "not approved within 3600 s: tax_office [run.undecided]"
    assert people.asked.count((TAX, "propose")) < 3600 / LIMITS.poll_most_s + 10


def test_a_node_out_of_reach_while_proposing_is_asked_again(registry: Registry) -> None:
    people, run = town(proposals={TAX: [gone(), gone(), APPROVED]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED


def test_a_node_that_dies_gets_its_order_again(registry: Registry) -> None:
    people = town()
    people.sessions[TAX] = [After(10, gone(), lambda: people.there.discard(TAX)), After(30, DONE)]
    run = submitted(registry)

    async def with_return() -> RunState:
        driving = asyncio.create_task(driven(registry, people, run))
        await asyncio.sleep(200)
        assert people.asked.count((TAX, "session")) == 1
        people.there.add(TAX)
        return await driving

    assert in_jumps(with_return()) is RunState.FINISHED
    assert people.asked.count((TAX, "session")) == 2
    assert people.asked.count((BANK, "session")) == 1
    assert [order for party, order in people.orders if party == TAX] == [b"order", b"ended order"]
    told = [event for party, event in events(registry, run) if party == TAX]
    assert told == ["approved", "session", "lost", "back", "session", "finished"]
    assert registry.was_cut(run) is None


@pytest.mark.parametrize("on_missing", ["stop", "continue"])
def test_a_node_that_never_comes_back_is_named(registry: Registry, on_missing: str) -> None:
    people = town(own=[After(5000, DONE)], sessions={BANK: [After(5000, DONE)], TELCO: [After(5000, DONE)]})
    people.sessions[TAX] = [After(10, gone(), lambda: people.there.discard(TAX))]
    run = submitted(registry, on_missing)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    said_of_it = "tax_office did not come back within 300 s"
    assert registry.was_cut(run) == said_of_it
    assert (TAX, "missing") in events(registry, run)
    assert set(registry.outcomes(run)) == {BANK, TELCO, COORDINATOR}, "the last words of the others are kept"
    following = [one for one in registry.runs() if one.continues == run]
    if on_missing == "stop":
        assert detail(registry, run) == f"{said_of_it} [run.missing]"
        assert following == []
    else:
        assert [one.state for one in following] == [RunState.SUBMITTED]
        assert detail(registry, run).endswith(f"continued without it as run {following[0].run}")


def test_nobody_goes_on_without_the_label_holder(registry: Registry) -> None:
    people = town(own=[After(5000, DONE)], sessions={TAX: [After(5000, DONE)], TELCO: [After(5000, DONE)]})
    people.sessions[BANK] = [After(10, gone(), lambda: people.there.discard(BANK))]
    run = submitted(registry, "continue")
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert "cannot go on without it: nobody else holds the label" in detail(registry, run)


def test_the_others_give_up_on_a_missing_party_first(registry: Registry) -> None:
    late = After(60, said(ok=False, code="exchange.late", text="no word from tax_office", culprit=TAX))
    people = town(own=[late], sessions={BANK: [late], TELCO: [late]})
    people.sessions[TAX] = [After(10, gone(), lambda: people.there.discard(TAX))]
    run = submitted(registry, "continue")
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run).startswith("tax_office is gone, and the others could not wait for it")
    assert [one.continues for one in registry.runs()] == ["", run]


def test_a_node_that_falls_over_again_and_again_is_missing(registry: Registry) -> None:
    people = town(sessions={TAX: [gone()]}, own=[After(5000, DONE)])
    run = submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "tax_office was gone 4 times [run.missing]"
    assert people.asked.count((TAX, "session")) == LIMITS.resends + 1


def test_a_failure_is_told_by_its_cause(registry: Registry) -> None:
    people = town(
        own=[After(20, said(ok=False, code="run.peer-failed", text="telco failed", culprit=TELCO))],
        sessions={
            BANK: [After(20, said(ok=False, code="run.peer-failed", text="telco failed", culprit=TELCO))],
            TELCO: [After(21, said(ok=False, code="data.column", text="column 'debt' is missing"))],
            TAX: [After(5000, DONE)],
        },
    )
    run = submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "telco: column 'debt' is missing [data.column]"
    assert registry.was_cut(run) == "telco: column 'debt' is missing [data.column]", "tax_office was told"


def test_a_refusal_of_a_node_is_final(registry: Registry) -> None:
    people = town(sessions={TAX: [IntegrityError("bundle.unlisted", "refused this code")]}, own=[After(5000, DONE)])
    run = submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "tax_office: refused this code [bundle.unlisted]"
    assert people.asked.count((TAX, "session")) == 1


@pytest.mark.parametrize(
    ("proposals", "sessions", "text"),
    [
        ({TAX: [b"\xff\x00"]}, {}, "tax_office: its decision does not decode [proposal.decision]"),
        ({}, {TAX: [b"garbage"]}, "tax_office: its last word does not decode [session.finished]"),
    ],
)
def test_garbage_is_the_partys_failure(registry: Registry, proposals: Any, sessions: Any, text: str) -> None:
    people, run = town(proposals=proposals, sessions=sessions), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == text
    assert TAX not in registry.outcomes(run)


def test_the_coordinators_worker_is_started_again(registry: Registry) -> None:
    died = TransportError("node.worker-died", "the worker was ended by signal 9")
    people, run = town(own=[died, died, After(30, DONE)]), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED
    assert events(registry, run).count((COORDINATOR, "lost")) == 2


def test_a_worker_that_never_stays_up_ends_the_run(registry: Registry) -> None:
    people = town(own=[TransportError("node.worker-died", "the worker was ended by signal 9")])
    people.sessions = {party: [After(5000, DONE)] for party in PARTIES}
    run = submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "coordinator: the worker was ended by signal 9 [node.worker-died]"


@pytest.mark.parametrize(("after", "orders"), [(100, 0), (700, 3)])
def test_the_operator_stops_it(registry: Registry, after: float, orders: int) -> None:
    people = town(
        proposals={TAX: [*[PENDING] * 10, APPROVED]},
        sessions={party: [After(6000, DONE)] for party in PARTIES},
        own=[After(6000, DONE)],
    )
    run = submitted(registry)

    async def with_stop() -> RunState:
        driving = asyncio.create_task(driven(registry, people, run))
        await asyncio.sleep(after)
        assert registry.stop(run, "enough") is RunState.STOPPING
        return await asyncio.wait_for(driving, 30)

    assert in_jumps(with_stop()) is RunState.STOPPED
    assert len([one for one in people.asked if one[1] == "session"]) == orders
    if orders:
        assert registry.was_cut(run) == "stopped by the operator"
        assert set(registry.outcomes(run)) == {*PARTIES, COORDINATOR}


def test_a_session_that_never_ends_is_ended(registry: Registry) -> None:
    people, run = town(sessions={TAX: [After(99_999, DONE)]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "not done within 7200 s: tax_office"
    assert registry.was_cut(run) == "not done within 7200 s: tax_office"


def test_whoever_does_not_hear_the_stop_does_not_hold_the_end_up(registry: Registry) -> None:
    people = town(sessions={TAX: [IntegrityError("x.y", "no")], BANK: [After(9e4, DONE)]}, own=[After(9e4, DONE)])
    run = submitted(registry)
    assert in_jumps(drive(parts_of(registry, people), run)) is RunState.FAILED
    late = [one.text for one in registry.events(run) if one.event == "late"]
    assert late == ["no last word within 20 s: bank, coordinator"]


def test_two_runs_at_once(registry: Registry) -> None:
    first, second = town(), town(sessions={TAX: [said(ok=False, code="data.rows", text="too few rows")]})
    runs = [submitted(registry), submitted(registry)]

    async def both() -> list[RunState]:
        pairs = zip((first, second), runs, strict=True)
        return list(await asyncio.gather(*(driven(registry, people, run) for people, run in pairs)))

    assert in_jumps(both()) == [RunState.FINISHED, RunState.FAILED]
    assert registry.was_cut(runs[0]) is None


def test_a_run_that_has_ended_is_not_driven(registry: Registry) -> None:
    run = submitted(registry)
    in_jumps(drive(parts_of(registry, town()), run))
    with pytest.raises(SpecError, match="finished already") as refused:
        in_jumps(drive(parts_of(registry, town()), run))
    assert refused.value.code == "run.ended"


def test_a_failure_of_the_driver_itself_is_written_down(registry: Registry) -> None:
    run, parts = submitted(registry), parts_of(registry, town())

    def broken(run: RunId) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_jumps(drive(DriverParts(**{**vars(parts), "make_proposal": broken}), run))
    assert detail(registry, run) == "the driver itself failed (ZeroDivisionError)"
    assert registry.get(run).state is RunState.FAILED


def test_a_run_that_another_process_drives_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    run, other = submitted(registry), Registry(tmp_path / "registry.sqlite")
    other.set_state(run, RunState.PROPOSING)
    with pytest.raises(SpecError, match="drives"):
        in_jumps(drive(parts_of(registry, town()), run))
    assert registry.get(run).state is RunState.PROPOSING
    other.close()


def test_a_run_that_was_stopped_before_it_was_driven(registry: Registry) -> None:
    run = submitted(registry)
    registry.launched(run, "17")
    registry.stop(run)
    people = town()
    assert in_jumps(drive(parts_of(registry, people), run)) is RunState.STOPPED
    assert people.asked == []


def test_whoever_failed_while_others_ended_is_told_that_they_have(registry: Registry) -> None:
    failed = After(20, said(ok=False, code="run.storage", text="its disk is full"))
    people = town(sessions={TAX: [failed, After(5, DONE)]})
    run = submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED
    assert [order for party, order in people.orders if party == TAX] == [b"order", b"ended order"]
    assert registry.outcomes(run)[TAX] == DONE


def test_whoever_has_no_result_although_others_ended_stays_failed(registry: Registry) -> None:
    failed = said(ok=False, code="run.ended", text="it has no result of the run")
    people, run = town(sessions={TAX: [After(20, failed)]}), submitted(registry)
    assert in_jumps(driven(registry, people, run)) is RunState.FAILED
    assert detail(registry, run) == "tax_office: it has no result of the run [run.ended]"
    assert len([order for party, order in people.orders if party == TAX]) == 2


def test_a_driver_that_was_restarted_knows_who_had_ended(registry: Registry) -> None:
    people, run = town(), submitted(registry)
    registry.outcome(run, BANK, DONE)
    assert in_jumps(driven(registry, people, run)) is RunState.FINISHED
    assert {order for _, order in people.orders} == {b"ended order"}
