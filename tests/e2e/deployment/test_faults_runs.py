"""Two runs at once in the same houses, and a run that goes on without a party, driven as the coordinator drives it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.runs.coordinator_parts import driver_parts
from fedcredit.runtime.runs.driver import drive
from fedcredit.runtime.runs.driver_parts import DriverLimits
from fedcredit.runtime.runs.proposal import check_proposal, read_order
from fedcredit.runtime.runs.registry import Registry
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import load_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from tests.e2e.deployment.fault_bench import CUSTOMS, new_run
    from tests.e2e.deployment.house_bench import Child, Held, Houses
else:
    from fault_bench import CUSTOMS, new_run
    from house_bench import Child, Held, Houses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BOOST = {
    "run": {"model": "boost"},
    "boost": {"trees": 3, "depth": 2, "min_child_rows": 20},
    "privacy": {"noise_rows": 4.0},
}


def at_once(houses: Houses, specs: list[Any]) -> list[tuple[RunId, dict[PartyId, Any]]]:
    """Runs of several specs over the same houses at once."""
    runs = []
    for spec in specs:
        run = new_run()
        houses.open_run(run)
        runs.append((run, houses.order(run, spec=spec)))
    for run, order in runs:
        houses.start_all(run, order)
    return [(run, houses.all_finished(run)) for run, _ in runs]


def test_two_runs_at_once(benches: Callable[..., Any], row: Any) -> None:
    scorecard, boost = benches("scorecard"), benches("boost", sections=BOOST)
    before, started = scorecard.totals(), time.monotonic()
    (first, ended), (second, also) = at_once(scorecard.houses, [scorecard.houses.loaded, boost.houses.loaded])
    seconds = time.monotonic() - started
    bad = {party: (one.code, one.text) for party, one in [*ended.items(), *also.items()] if not one.ok}
    assert not bad, bad
    scorecard.check_part(first)
    scorecard.check_part(second, boost.simulated)
    for party in scorecard.houses.loaded.spec.parties:
        assert scorecard.spent(party, first) == scorecard.charges[party][:2]
        assert scorecard.spent(party, second) == boost.charges[party][:2]
        grown = dict(scorecard.charges[party][2])
        for account, amount in boost.charges[party][2].items():
            grown[account] = grown.get(account, 0) + amount
        assert scorecard.grown(party, before) == grown
    happened = "both ended; ledgers charged the sum"
    row("two runs at once (scorecard, boost)", "all", happened, seconds, "yes, both")


CAPS = {"privacy": {"enforce": True, "noise_rows": 4.0}}


def test_two_runs_at_once_meet_the_caps(
    houses: Callable[..., Houses], row: Any, consortium: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever the two do to each other's room, no cap is passed, and who is refused is refused by name."""
    made = houses(rows=1200, sections=CAPS)
    boosted = {"run": BOOST["run"], "boost": BOOST["boost"], **CAPS}
    boost = load_spec(consortium(tmp_path / "boosted", rows=1200, sections=boosted))
    made.start_exchange()
    started, words = time.monotonic(), []
    for turn in range(3):
        for run, ended in at_once(made, [made.loaded, boost]):
            codes = {one.code for one in ended.values() if not one.ok}
            assert all(one.ok for one in ended.values()) or codes & {"ledger.cap", "run.peer-failed"}, (turn, codes)
            words.append("ok" if not codes else "refused: " + ", ".join(sorted(codes - {"run.peer-failed"})))
            _check_caps(made, run)
    seconds = time.monotonic() - started
    assert "ok" in words[:2], words
    assert "refused: ledger.cap" in words, words
    happened = f"three pairs, scorecard and boost in turn: {'; '.join(words)}; no cap passed"
    row("two runs at once, caps in force, until they are used up", "all", happened, seconds, "–")


def _check_caps(houses: Houses, run: RunId) -> None:
    for party in houses.loaded.spec.parties:
        file = houses.homes[party].runs / run / "leakage.json"
        for line in json.loads(file.read_text("utf-8"))["ledger"][party] if file.exists() else []:
            for kind, figures in line.items():
                if kind != "counterparty":
                    assert figures["cap"] is not None, kind
                    assert figures.get("largest", figures.get("spent")) <= figures["cap"], (party, kind, line)
        with sqlite3.connect(houses.homes[party].state / "ledger.sqlite") as ledger:
            (over,) = ledger.execute("SELECT count(*) FROM allowances WHERE spent > declared").fetchone()
        ledger.close()
        assert over == 0


class Errands:
    """Flower's part: carries messages to nodes and their answers back; a node that is off answers nothing.

    Args:
        houses: The nodes.
        registry: The coordinator's book of runs.
    """

    def __init__(self, houses: Houses, registry: Registry) -> None:
        self.houses, self.registry = houses, registry
        self.off: set[PartyId] = set()
        self.holds: dict[PartyId, str] = {}
        self.held: asyncio.Queue[Held] = asyncio.Queue()

    async def ask(self, party: PartyId, action: str, payload: bytes, timeout_s: float) -> bytes:
        if party in self.off:
            raise TransportError("node.gone", f"{party} is not connected")
        if action == "propose":
            return await asyncio.to_thread(self._considered, party, payload)
        run = _run_of(payload, self.houses)
        if party in self.holds:
            self.held.put_nowait(self.houses.hold(party, run, payload, self.holds.pop(party)))
            return await self._answer(self.houses.workers[run, party], party)
        return await self._answer(self.houses.start(party, run, payload), party)

    def _considered(self, party: PartyId, payload: bytes) -> bytes:
        return node_session.consider(self.houses.homes[party], payload)

    async def online(self) -> frozenset[PartyId]:
        return frozenset(self.houses.loaded.spec.parties) - self.off

    async def own_worker(self, order: bytes) -> bytes:
        return await self._answer(
            self.houses.start(COORDINATOR, _run_of(order, self.houses), order),
            COORDINATOR,
        )

    async def _answer(self, child: Child, party: PartyId) -> bytes:
        while child.running():
            if party in self.off:
                child.kill()
                raise TransportError("node.gone", f"{party} is not connected")
            await asyncio.sleep(0.02)
        if child.status != 0:
            raise TransportError("node.worker-died", f"the worker of {party} died")
        return child.out.read_bytes()

    async def daemon(self) -> None:
        """What the coordinator's daemon does: runs that the driver cuts are ended in the exchange."""
        told = set()
        while True:
            for run in list(self.houses.runs):
                reason = self.registry.was_cut(run)
                if reason is not None and run not in told:
                    told.add(run)
                    self.houses.tell_exchange(f"stop {run} {reason}", f"stopped {run}")
            await asyncio.sleep(0.1)


def _run_of(order: bytes, houses: Houses) -> RunId:
    return check_proposal(read_order(order).proposal, houses.homes[COORDINATOR].roster, datetime.now(UTC)).run


@pytest.fixture
def errands(houses: Callable[..., Houses]) -> Iterator[Errands]:
    made = houses(sections={"run": {"on_missing": "continue"}, "network": {"timeout_s": 30.0}})
    made.start_exchange()
    registry = Registry(made.homes[COORDINATOR].state / "registry.sqlite")
    yield Errands(made, registry)
    registry.close()


MISSING_S = 3.0


def test_the_others_go_on_without_a_party(
    errands: Errands, row: Any, consortium: Callable[..., Path], tmp_path: Path
) -> None:
    houses, registry = errands.houses, errands.registry
    limits = DriverLimits(online_s=20, approval_s=60, missing_s=MISSING_S, settle_s=60, stop_s=60, look_s=0.2)
    parts = driver_parts(houses.homes[COORDINATOR], registry, errands, errands.own_worker, limits)
    text = travelling_json(houses.loaded.spec, "records")
    run = registry.submit(text, "made-up", spec_digest(houses.loaded.spec), "scorecard", "records")
    houses.open_run(run)
    errands.holds[CUSTOMS] = "scorecard:1"
    times = []

    async def lose(started: float) -> None:
        """Switches a node off for good in the middle of the run."""
        held = await errands.held.get()
        await asyncio.to_thread(held.wait)
        errands.off.add(CUSTOMS)
        times.append(time.monotonic() - started)

    async def both() -> tuple[str, str, RunId]:
        daemon = asyncio.create_task(errands.daemon())
        losing = asyncio.create_task(lose(time.monotonic()))
        first = await drive(parts, run)
        await losing
        times.append(time.monotonic())
        following = next(one.run for one in registry.runs() if one.continues == run)
        houses.open_run(following, [party for party in houses.loaded.spec.parties if party != CUSTOMS])
        second = await drive(parts, following)
        times.append(time.monotonic())
        daemon.cancel()
        return first, second, following

    started = time.monotonic()
    first, second, following = asyncio.run(both())
    assert (first, second) == ("failed", "finished"), registry.get(following).detail
    assert "customs did not come back" in registry.get(run).detail
    assert str(following) in registry.get(run).detail
    left = [party for party in houses.loaded.spec.parties if party != CUSTOMS]
    options = {"run": {"on_missing": "continue"}, "network": {"timeout_s": 30.0}}
    alone = load_spec(consortium(tmp_path / "without", rows=400, holders=left[1:], sections=options))
    for party in left:
        # the made-up records of the remaining parties are the same whoever else there is
        name = f"{party}.csv"
        (alone.base / name).write_bytes((houses.loaded.base / name).read_bytes())
    out = simulate(alone, tmp_path / "out").out
    for party in left:
        folder = houses.homes[party].runs / following
        assert json.loads((folder / "summary.json").read_text("utf-8"))["deployed"] == {
            "party": party,
            "continues": run,
            "missing": [CUSTOMS],
        }
        name = f"model/{party}/scorecard.json"
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert not (houses.homes[CUSTOMS].state / "runs" / following).exists()
    named = times[1] - started - times[0]
    row(
        'customs never comes back, on_missing = "continue"',
        "scorecard",
        f"named after {named:.1f} s (missing_s = {MISSING_S:g}); the rest finished, deployed.missing = [customs]",
        times[2] - started - times[0],
        "yes: that of a simulation without it",
    )
