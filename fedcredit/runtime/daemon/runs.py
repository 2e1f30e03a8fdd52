"""Keeps the exchange and Flower in step with the registry: opens, launches, cuts and closes runs, and finds lost ones.

The registry alone says what is to be; nothing here is remembered that a restart would miss. Each step reads it,
compares it with what is open, and does the difference, so that a daemon that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.logs import Log, code_of, log_failure
from fedcredit.runtime.hybrid.rooms import rooms_of
from fedcredit.runtime.runs.registry import ACTIVE, CUT, LAUNCHING, Registry, RunRecord, RunState
from fedcredit.types import PartyId, RunId

__all__ = ["Carrier", "RunKeeper", "Switchboard"]

_LOST = "the process that drove it is gone"
_RELAUNCHES = 5  # of one submission; a run whose driver dies again and again has another fault
_LOOK_FOR_LOST = 3.0  # seconds between two looks; a run counts as lost when both see no driver
_START = 300.0  # seconds from a launch until its driver must have begun; it waits for an interpreter and a poll or two
_ASK = 15.0  # seconds between two questions to Flower about runs that have not begun, each of which starts a process


class Switchboard(Protocol):
    """The exchange as far as runs go."""

    async def open_run(self, run: RunId, members: Sequence[PartyId]) -> None:
        """Lets the members of a run in; harmless when it is open."""

    async def stop_run(self, run: RunId, reason: str) -> None:
        """Ends a run for everyone in it, who are told why."""

    async def close_run(self, run: RunId) -> None:
        """Forgets a run; harmless when it is not open."""


class Carrier(Protocol):
    """Flower as far as runs go."""

    def ready(self) -> bool:
        """Whether runs can be launched."""
        ...

    async def launch(self, run: RunId) -> str:
        """Starts the process that drives a run; returns the id of its Flower run."""
        ...

    async def ended(self, flower_runs: Sequence[str]) -> frozenset[str]:
        """Those Flower runs that have ended or are unknown."""
        ...

    async def cancel(self, flower_run: str) -> None:
        """Ends a Flower run that nobody needs any more; harmless when it has ended."""


@dataclass
class _Difference:
    open: list[RunRecord] = field(default_factory=list)
    cut: list[tuple[RunId, str]] = field(default_factory=list)
    close: list[RunId] = field(default_factory=list)
    launch: RunRecord | None = None
    carried: list[RunRecord] = field(default_factory=list)


class RunKeeper:
    """See the module.

    Args:
        registry: What is to be.
        exchange: Where runs are open.
        flower: What carries them.
        log: Where all steps go.
        most: Runs carried at once.
    """

    def __init__(self, registry: Registry, exchange: Switchboard, flower: Carrier, log: Log, most: int = 8) -> None:
        self._registry, self._exchange, self._flower, self._log = registry, exchange, flower, log
        self._most = most
        self._open: set[RunId] = set()
        self._cut: set[RunId] = set()
        self._news = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._launching: RunId | None = None
        self._launched: dict[RunId, float] = {}
        self._looked, self._absent = time.monotonic(), frozenset[RunId]()
        self._asked, self._ended = time.monotonic(), frozenset[str]()

    async def recover(self) -> None:
        """What a start begins with: runs that were under way are open again, half-done launches are forgotten.

        Whoever drove runs for the daemon before this one ended with it; these runs are found as lost soon.
        """
        self._news = await asyncio.to_thread(self._registry.last_event)
        for record in await asyncio.to_thread(self._registry.runs, RunState.SUBMITTED):
            if record.flower_run == LAUNCHING:
                self._registry.launched(record.run, "")
        for record in await asyncio.to_thread(self._registry.runs, *ACTIVE):
            if self._registry.was_cut(record.run) is not None:
                self._cut.add(record.run)
            else:
                self._log.info("run.recovered", run=record.run, state=record.state)
        await self.step()

    async def step(self) -> None:
        """Brings everything in step once."""
        todo = await asyncio.to_thread(self._difference)
        for run, reason in todo.cut:
            self._open.discard(run)
            await self._do("run.cut", run, self._cutting(run, reason))
        for run in todo.close:
            self._open.discard(run)
            self._cut.discard(run)
            await self._do("run.closed", run, self._closing(run))
        for record in todo.open:
            await self._open_run(record)
        if todo.launch is not None and self._launching is None and self._flower.ready():
            self._launching = todo.launch.run
            self._begin(self._launch(todo.launch))
        if time.monotonic() - self._looked > _LOOK_FOR_LOST:
            self._looked = time.monotonic()
            await self._find_lost(todo.carried)
        if time.monotonic() - self._asked > _ASK and self._flower.ready():
            self._asked = time.monotonic()
            unbegun = [one for one in todo.carried if one.run in self._launched and self._unbegun(one)]
            if unbegun:
                self._begin(self._ask([one.flower_run for one in unbegun]))

    async def close(self) -> None:
        """Ends what is under way here; runs go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _difference(self) -> _Difference:
        news = self._registry.news(self._news)
        todo = _Difference()
        for run, event in news:
            if event.event == CUT:
                todo.cut.append((run, event.text))
                self._cut.add(run)
            elif event.event == "state" and event.text.startswith(RunState.SUBMITTED):
                self._cut.discard(run)  # resumed: it is let in again
            self._news = event.number
        live = self._registry.runs(RunState.SUBMITTED, *ACTIVE)
        carried = [one for one in live if one.state in ACTIVE or one.flower_run not in ("", LAUNCHING)]
        # sessions go on without a driver while the exchange lets them
        let_in = [*carried, *(one for one in live if one.state is RunState.SUBMITTED and one.detail == _LOST)]
        still = self._open - {run for run, _ in todo.cut}
        todo.open = [one for one in let_in if one.run not in still | self._cut]
        todo.close = sorted((still | self._cut) - {one.run for one in live})
        todo.carried = [one for one in carried if one.flower_run != LAUNCHING]
        waiting = [one for one in live if one.state is RunState.SUBMITTED and not one.flower_run]
        if waiting and len(carried) < self._most:
            todo.launch = waiting[0]
        return todo

    async def _open_run(self, record: RunRecord) -> bool:
        done = await self._do("run.opened", record.run, self._opening(record))
        if done:
            self._open.add(record.run)
        return done

    async def _opening(self, record: RunRecord) -> None:
        rooms = rooms_of(record)
        try:
            for room, members in rooms.items():
                await self._exchange.open_run(room, members)
        except FedCreditError:
            if record.run not in self._open:  # whole or not at all: two runs must not wait for each other's rooms
                for room in rooms:
                    await self._exchange.close_run(room)
            raise

    async def _cutting(self, run: RunId, reason: str) -> None:
        failed: FedCreditError | None = None
        for room in rooms_of(self._registry.get(run)):
            try:
                await self._exchange.stop_run(room, reason)
            except FedCreditError as error:
                failed = error
        if failed is not None:
            raise failed

    async def _closing(self, run: RunId) -> None:
        for room in rooms_of(self._registry.get(run)):
            await self._exchange.close_run(room)

    async def _do(self, event: str, run: RunId, doing: Awaitable[None]) -> bool:
        try:
            await doing
        except FedCreditError as error:
            self._log.warning(event, run=run, code=error.code)
            return False
        self._log.info(event, run=run)
        return True

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch(self, record: RunRecord) -> None:
        run = record.run
        try:
            now = self._registry.get(run)
            if now.state is not RunState.SUBMITTED or now.flower_run:
                return  # launched or stopped since the registry was read
            if not await self._open_run(record):
                return  # the exchange is full: tried again at the next step
            self._registry.launched(run, LAUNCHING)
            try:
                flower_run = await self._flower.launch(run)
            except Exception as error:  # noqa: BLE001 -- whatever it was, the run says that it failed
                log_failure(self._log, "run.launched", error, run=run)
                self._registry.launched(run, "")
                self._fail(run, f"it could not be launched: {_text(error)}")
                return
            self._launched[run] = time.monotonic()
            self._registry.launched(run, flower_run)
            self._log.info("run.launched", run=run)
        finally:
            self._launching = None

    async def _find_lost(self, carried: list[RunRecord]) -> None:
        """Runs whose driver is gone are launched again, or end where they were to stop."""
        absent = frozenset(one.run for one in carried if not self._is_driven(one))
        lost, self._absent = absent & self._absent, absent
        for record in carried:
            run = record.run
            if run not in lost or self._registry.get(run).state != record.state or self._is_driven(record):
                continue
            self._log.warning("run.lost", run=run, state=record.state)
            self._launched.pop(run, None)
            if record.flower_run:
                self._begin(self._cancel(record.flower_run))
            if record.state is not RunState.STOPPING and self._relaunches(run) >= _RELAUNCHES:
                self._fail(run, f"{_LOST}, {_RELAUNCHES} times over")
            else:
                self._registry.requeue(run, _LOST)

    def _is_driven(self, record: RunRecord) -> bool:
        """Whether a process drives a run, or will when it has come up."""
        if self._unbegun(record):
            late = time.monotonic() - self._launched.get(record.run, -_START) >= _START
            return not late and record.flower_run not in self._ended
        return bool(self._registry.driven(record.run))

    def _unbegun(self, record: RunRecord) -> bool:
        """Whether nothing has driven a run since it was submitted."""
        waits = record.state in (RunState.SUBMITTED, RunState.STOPPING)
        return waits and self._registry.driven(record.run) is None

    async def _ask(self, flower_runs: list[str]) -> None:
        """Sees launches that came to nothing, such as a driver that fails before it begins."""
        try:
            self._ended = await self._flower.ended(flower_runs)
        except FedCreditError as error:
            self._log.info("flower.asked", code=error.code)

    async def _cancel(self, flower_run: str) -> None:
        try:
            await self._flower.cancel(flower_run)
        except FedCreditError as error:  # it may be long gone
            self._log.info("flower.cancelled", code=error.code)

    def _relaunches(self, run: RunId) -> int:
        """How often it was lost since somebody submitted or resumed it."""
        count = 0
        for event in self._registry.events(run, limit=1_000_000):
            if event.event == "state" and event.text.startswith(RunState.SUBMITTED):
                count = count + 1 if event.text.endswith(_LOST) else 0
        return count

    def _fail(self, run: RunId, text: str) -> None:
        try:
            self._registry.set_state(run, RunState.FAILED, text)
        except FedCreditError as error:
            self._log.warning("run.failed", run=run, code=error.code)


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, FedCreditError) else f"internal error [{code_of(error)}]"
