"""The daemon's keeper of runs: what is open, launched, cut and closed follows the registry, over restarts too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.daemon_runs import RunKeeper
from fedcredit.runtime.logs import Log, Logs
from fedcredit.runtime.registry import Registry, RunState
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


class World:
    def __init__(self, folder: Path, log: Log) -> None:
        self.registry, self.log = Registry(folder / "registry.sqlite"), log
        self.exchange, self.flower = Exchange(), Flower()
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
    monkeypatch.setattr("fedcredit.runtime.daemon_runs._LOOK_FOR_LOST", -1.0)
    logs = Logs("coordinator", tmp_path, quiet=True)
    one = World(tmp_path, logs.log)
    yield one
    one.registry.close()
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
    for state in ("proposing", "running", "finished"):
        world.registry.set_state(runs[0], state)
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
    world.registry.set_state(run, "proposing")
    world.registry.set_state(run, "running")
    world.registry.cut(run, "bank is gone")
    asyncio.run(world.steps())
    assert world.exchange.stopped == [(run, "bank is gone")]
    assert world.exchange.runs == {}
    world.keeper = world.fresh()
    asyncio.run(world.keeper.recover())
    assert world.exchange.runs == {}
    world.registry.set_state(run, "failed")
    world.registry.resume(run)
    asyncio.run(world.steps())
    assert list(world.exchange.runs) == [run]
    assert world.flower.launched == [run, run]
    assert len(world.exchange.stopped) == 1


def test_cut_and_resumed_between_two_steps(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.registry.set_state(run, "proposing")
    world.registry.cut(run, "wrong month")
    world.registry.set_state(run, "failed")
    world.registry.resume(run)
    asyncio.run(world.steps())
    assert world.exchange.stopped == [(run, "wrong month")]
    assert list(world.exchange.runs) == [run]


def test_a_restart_opens_what_was_under_way(world: World) -> None:
    runs = [world.submit() for _ in range(3)]
    asyncio.run(world.steps(6))
    world.registry.set_state(runs[0], "proposing")
    for state in ("proposing", "running", "finished"):
        world.registry.set_state(runs[1], state)
    world.exchange = Exchange()  # the new process's own
    world.keeper = world.fresh()
    asyncio.run(world.keeper.recover())
    assert set(world.exchange.runs) == {runs[0], runs[2]}
    assert len(world.flower.launched) == 3


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
    world.registry.set_state(run, "proposing")
    world.registry.set_state(run, "running")
    world.flower.gone = {"1"}
    asyncio.run(world.steps(6))
    assert world.flower.launched == [run, run]
    assert world.registry.get(run).flower_run == "2"


def test_one_absence_is_not_enough(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.registry.set_state(run, "proposing")

    async def once() -> None:
        world.flower.gone = {"1"}
        await world.keeper.step()
        await asyncio.sleep(0.01)
        world.flower.gone = set()
        await world.steps()

    asyncio.run(once())
    assert world.flower.launched == [run]


def test_a_stopping_run_without_driver_is_stopped(world: World) -> None:
    run = world.submit()
    asyncio.run(world.steps())
    world.registry.set_state(run, "proposing")
    assert world.registry.stop(run, "by ops") is RunState.STOPPING
    world.flower.gone = {"1"}
    asyncio.run(world.steps(6))
    assert (world.state(run), world.registry.get(run).detail) == ("stopped", "by ops")
    assert world.exchange.runs == {}


def test_a_driver_that_dies_again_and_again_fails_the_run(world: World) -> None:
    run = world.submit()
    world.flower.gone = {str(number) for number in range(100)}
    asyncio.run(world.steps(60))
    assert world.state(run) == "failed"
    assert len(world.flower.launched) == 6
    world.registry.resume(run)
    world.flower.gone = set()
    asyncio.run(world.steps())
    assert world.state(run) == "submitted"
    assert world.registry.get(run).flower_run == "7"
