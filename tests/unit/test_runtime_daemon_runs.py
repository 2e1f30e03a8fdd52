"""The daemon's keeper of runs: what is open, launched, cut and closed follows the registry, over restarts too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.daemon.logs import Log, Logs
from fedcredit.runtime.daemon.runs import RunKeeper
from fedcredit.runtime.runs.registry import Registry, RunState
from fedcredit.types import PartyId, RunId

SPEC = json.dumps({"party": [{"name": "bank"}, {"name": "tax_office"}]})


class Exchange:
    def __init__(self) -> None:
        self.runs: dict[RunId, tuple[PartyId, ...]] = {}
        self.stopped: list[tuple[RunId, str]] = []
        self.most = 100

    async def open_run(self, run: RunId, members: Sequence[PartyId]) -> None:
        if len(self.runs) >= self.most:
            raise TransportError("exchange.full", "full")
        self.runs[run] = tuple(members)

    async def stop_run(self, run: RunId, reason: str) -> None:
        self.runs.pop(run, None)
        self.stopped.append((run, reason))

    async def close_run(self, run: RunId) -> None:
        self.runs.pop(run, None)


class Flower:
    def __init__(self) -> None:
        self.up, self.fails, self.slow = True, "", False
        self.launched: list[RunId] = []
        self.stopped: list[str] = []
        self.gone: set[str] = set()

    def ready(self) -> bool:
        return self.up

    async def launch(self, run: RunId) -> str:
        if self.fails:
            raise TransportError("flower.launch", self.fails)
        if self.slow:
            await asyncio.sleep(3600)
        self.launched.append(run)
        return str(len(self.launched))

    async def ended(self, flower_runs: Sequence[str]) -> frozenset[str]:
        return frozenset(self.gone & set(flower_runs))

    async def cancel(self, flower_run: str) -> None:
        self.stopped.append(flower_run)


class Driver:
    """The process that drives runs, as far as the registry sees it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "registry.sqlite"
        self.registry = Registry(self._path)

    def to(self, run: RunId, *states: str) -> None:
        for state in states:
            self.registry.set_state(run, state)

    def die(self) -> None:
        self.registry.close()
        self.registry = Registry(self._path)


class World:
    def __init__(self, folder: Path, log: Log) -> None:
        self.registry, self.log = Registry(folder / "registry.sqlite"), log
        self.exchange, self.flower, self.driver = Exchange(), Flower(), Driver(folder)
        self.keeper = self.fresh()

    def fresh(self, most: int = 8) -> RunKeeper:
        return RunKeeper(self.registry, self.exchange, self.flower, self.log, most)

    def submit(self) -> RunId:
        return self.registry.submit(SPEC, "first", "d" * 64, "scorecard", "loans")

    def state(self, run: RunId) -> str:
        return str(self.registry.get(run).state)

    async def steps(self, count: int = 3) -> None:
        for _ in range(count):
            await self.keeper.step()
            await asyncio.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("fedcredit.runtime.daemon.runs._LOOK_FOR_LOST", -1.0)
    monkeypatch.setattr("fedcredit.runtime.daemon.runs._ASK", -1.0)
    logs = Logs("coordinator", tmp_path, quiet=True)
    one = World(tmp_path, logs.log)
    yield one
    one.registry.close()
    one.driver.registry.close()
    logs.close()


def test_a_submitted_run_is_opened_and_launched_once(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    assert world.exchange.runs == {run: ("bank", "tax_office", "coordinator")}
    assert world.flower.launched == [run]
    assert world.registry.get(run).flower_run == "1"


def test_launches_are_bounded_and_in_order(world: World) -> None:
    world.keeper = world.fresh(most=2)
    runs = [world.submit() for _ in range(4)]
    asyncio.run(world.steps(6))
    assert world.flower.launched == runs[:2]
    world.driver.to(runs[0], "proposing", "running", "finished")
    asyncio.run(world.steps(3))
    assert world.flower.launched == runs[:3]
    assert set(world.exchange.runs) == {runs[1], runs[2]}


def test_nothing_is_launched_while_flower_is_down(world: World) -> None:
    run = world.submit()
    world.flower.up = False
    asyncio.run(world.steps())
    assert (world.flower.launched, world.exchange.runs) == ([], {})
    world.flower.up = True
    asyncio.run(world.steps())
    assert world.flower.launched == [run]


def test_a_full_exchange_makes_a_run_wait(world: World) -> None:
    run, world.exchange.most = world.submit(), 0
    asyncio.run(world.steps())
    assert (world.flower.launched, world.state(run)) == ([], "submitted")
    world.exchange.most = 5
    asyncio.run(world.steps())
    assert world.flower.launched == [run]


def test_a_launch_that_fails_fails_the_run_by_name(world: World) -> None:
    run, world.flower.fails = world.submit(), "no room"
    asyncio.run(world.steps())
    record = world.registry.get(run)
    assert (record.state, record.flower_run) == ("failed", "")
    assert record.detail == "it could not be launched: no room [flower.launch]"
    assert world.exchange.runs == {}


def test_a_cut_run_is_stopped_with_its_reason_and_stays_out(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.driver.to(run, "proposing", "running")
    world.registry.cut(run, "bank is gone")
    asyncio.run(world.steps())
    assert world.exchange.stopped == [(run, "bank is gone")]
    assert world.exchange.runs == {}
    world.keeper = world.fresh()
    asyncio.run(world.keeper.recover())
    assert world.exchange.runs == {}
    world.driver.to(run, "failed")
    world.registry.resume(run)
    asyncio.run(world.steps())
    assert list(world.exchange.runs) == [run]
    assert world.flower.launched == [run, run]
    assert len(world.exchange.stopped) == 1


def test_cut_and_resumed_between_two_steps(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.driver.to(run, "proposing")
    world.registry.cut(run, "wrong month")
    world.driver.to(run, "failed")
    world.registry.resume(run)
    asyncio.run(world.steps())
    assert world.exchange.stopped == [(run, "wrong month")]
    assert list(world.exchange.runs) == [run]


def test_a_restart_opens_what_was_under_way(world: World) -> None:
    runs = [world.submit() for _ in range(3)]
    asyncio.run(world.steps(6))
    world.driver.to(runs[0], "proposing", "running")
    world.driver.to(runs[1], "proposing", "running", "finished")
    world.driver.to(runs[2], "proposing")
    world.exchange = Exchange()  # the new process's own
    world.keeper = world.fresh()
    asyncio.run(world.keeper.recover())
    assert set(world.exchange.runs) == {runs[0], runs[2]}
    assert len(world.flower.launched) == 3


def test_after_a_restart_sessions_go_on_while_their_driver_comes_back(world: World) -> None:
    run, idle = world.submit(), world.submit()
    asyncio.run(world.steps(6))
    world.driver.to(run, "proposing", "running")
    world.driver.die()
    world.exchange, world.flower.up = Exchange(), False
    world.keeper = world.fresh()
    asyncio.run(world.keeper.recover())
    asyncio.run(world.steps(4))
    assert set(world.exchange.runs) == {run, idle}
    assert (world.state(run), world.registry.get(run).flower_run) == ("submitted", "")
    assert sorted(world.flower.stopped) == ["1", "2"]
    world.flower.up = True
    asyncio.run(world.steps(6))
    assert world.flower.launched == [run, idle, run, idle]
    assert world.exchange.stopped == []


def test_a_daemon_killed_while_launching_launches_again(world: World) -> None:
    run, world.flower.slow = world.submit(), True

    async def killed() -> None:
        await world.steps()
        await world.keeper.close()

    asyncio.run(killed())
    assert world.registry.get(run).flower_run == "launching"
    world.flower.slow = False
    world.keeper = world.fresh()

    async def again() -> None:
        await world.keeper.recover()
        await world.steps()

    asyncio.run(again())
    assert world.flower.launched == [run]


def test_a_run_whose_driver_is_gone_is_launched_again(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.driver.to(run, "proposing", "running")
    asyncio.run(world.steps(6))
    assert world.flower.launched == [run]
    world.driver.die()
    asyncio.run(world.steps(6))
    assert world.flower.launched == [run, run]
    assert world.registry.get(run).flower_run == "2"
    assert world.flower.stopped == ["1"]


def test_a_driver_that_comes_back_between_two_looks_is_not_lost(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.driver.to(run, "proposing")

    async def once() -> None:
        world.driver.die()
        await world.keeper.step()
        world.driver.to(run, "waiting", "proposing")
        await world.steps()

    asyncio.run(once())
    assert world.flower.launched == [run]


def test_a_driver_has_time_to_come_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.submit()
    asyncio.run(world.steps(6))
    assert world.flower.launched == [run]
    monkeypatch.setattr("fedcredit.runtime.daemon.runs._START", 0.0)
    asyncio.run(world.steps(6))
    assert len(world.flower.launched) > 1


def test_a_driver_that_never_begins_is_seen_by_its_flower_run(world: World) -> None:
    run, other = world.submit(), world.submit()
    asyncio.run(world.steps(6))
    world.driver.to(other, "proposing")
    world.flower.gone = {"1", "2"}  # the second is driven, whatever Flower says
    asyncio.run(world.steps(8))
    assert world.flower.launched == [run, other, run]
    assert world.registry.get(other).flower_run == "2"


def test_a_stopping_run_without_driver_is_stopped(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.driver.to(run, "proposing")
    assert world.registry.stop(run, "by ops") is RunState.STOPPING
    world.driver.die()
    asyncio.run(world.steps(6))
    assert (world.state(run), world.registry.get(run).detail) == ("stopped", "by ops")
    assert world.exchange.runs == {}


def test_a_driver_that_dies_again_and_again_fails_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcredit.runtime.daemon.runs._START", 0.0)
    run = world.submit()
    asyncio.run(world.steps(60))
    assert world.state(run) == "failed"
    assert len(world.flower.launched) == 6
    monkeypatch.setattr("fedcredit.runtime.daemon.runs._START", 300.0)
    world.registry.resume(run)
    asyncio.run(world.steps())
    assert world.state(run) == "submitted"
    assert world.registry.get(run).flower_run == "7"
