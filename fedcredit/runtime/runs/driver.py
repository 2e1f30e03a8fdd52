"""Takes one run from its proposal to its end: asks, waits, starts, watches, stops, and writes down what happened.

A state machine without Flower, keys or sockets (`DriverParts`). Every wait ends; every change is an event in the
registry; whoever holds a run up is named.

    proposing   everyone connected? → a proposal to each
    waiting     somebody's people still decide → asked again at growing intervals
    running     everyone approved → the coordinator's own worker, and a session order to each (`runs.sessions`)
    finished failed stopped
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.runs.driver_parts import IN_ROUNDS, DriverParts, Verdict, VerdictKind
from fedcredit.runtime.runs.registry import ENDED, RunRecord, RunState
from fedcredit.runtime.runs.sessions import RunEnd, Sessions
from fedcredit.types import PartyId, RunId

__all__ = ["drive"]

_POLL_GROWTH = 1.5  # people take minutes to hours; the first questions catch a policy that decides at once
_Result = TypeVar("_Result")


async def drive(parts: DriverParts, run: RunId) -> RunState:
    """Drives a registered run to its end.

    Args:
        parts: What it works with.
        run: The run, in whatever state the registry has it.

    Returns:
        The state in which it ended: finished, failed or stopped.

    Raises:
        SpecError: there is no such run, it has ended before, or another process drives it.
    """
    record = parts.registry.get(run)
    if record.state in ENDED:
        raise SpecError("run.ended", f"run {run}: {record.state} already; resume it to drive it again")
    if record.state is not RunState.STOPPING:
        parts.registry.set_state(run, RunState.PROPOSING, "waiting until all parties are connected")
    return await _Drive(parts, record).through()


class _Drive:
    """One run on its way."""

    def __init__(self, parts: DriverParts, record: RunRecord) -> None:
        self._parts, self._record, self._run = parts, record, record.run
        self._stop = asyncio.Event()

    async def through(self) -> RunState:
        watch = asyncio.create_task(self._watch())
        try:
            end = await self._course()
        except RunEnd as ended:
            end = ended
        except FedCreditError as error:
            end = RunEnd(RunState.FAILED, str(error))
        except Exception as error:
            self._end(RunEnd(RunState.FAILED, f"the driver itself failed ({type(error).__name__})"))
            raise
        finally:
            watch.cancel()
        return self._end(end)

    async def _course(self) -> RunEnd:
        if self._record.state is RunState.STOPPING:
            raise RunEnd(RunState.STOPPED, "stopped before it started")
        await self._unless_stopped(self._together())
        proposal = self._parts.make_proposal(self._run)
        decisions = await self._unless_stopped(self._approvals(proposal))
        orders = {ended: self._parts.make_order(self._run, proposal, decisions, ended) for ended in (False, True)}
        self._state(RunState.RUNNING, "session orders sent")
        if self._record.model in IN_ROUNDS and self._parts.rounds is not None:
            return await self._parts.rounds(self._parts, self._record, orders[False], self._stop)
        return await Sessions(self._parts, self._record, orders, self._stop).through()

    async def _watch(self) -> None:
        """Sees that the operator wants the run to stop."""
        while self._parts.registry.get(self._run).state is not RunState.STOPPING:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(self._parts.limits.look_s)
        self._stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """A result, or the end of the run as soon as the operator stops it."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise RunEnd(RunState.STOPPED, "stopped before it started")
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _together(self) -> None:
        """Waits until every party is connected.

        Raises:
            TransportError: some are still missing; they are named.
        """
        missing: list[PartyId] = []
        try:
            async with asyncio.timeout(self._parts.limits.online_s):
                while True:
                    there = await self._online()
                    now_missing = [party for party in self._record.parties if party not in there]
                    if not now_missing:
                        return
                    if now_missing != missing:
                        missing = now_missing
                        self._event("", "waiting", f"not connected yet: {', '.join(missing)}")
                    await asyncio.sleep(self._parts.limits.look_s)
        except TimeoutError:
            seconds = f"{self._parts.limits.online_s:g}"
            names = ", ".join(missing or self._record.parties)
            raise TransportError("run.not-connected", f"not connected within {seconds} s: {names}") from None

    async def _online(self) -> frozenset[PartyId]:
        try:
            return await self._parts.courier.online()
        except TransportError:
            return frozenset()

    async def _approvals(self, proposal: bytes) -> dict[PartyId, bytes]:
        """Everyone's approval.

        Raises:
            RunEnd: somebody denied.
            TransportError: somebody had not decided in time, or cannot be reached; the party is named.
            FedCreditError: a node failed on the proposal, or its answer does not verify; the party is named.
        """
        self._event("", "proposed", f"proposed to {', '.join(self._record.parties)}")
        undecided = set(self._record.parties)
        try:
            async with asyncio.timeout(self._parts.limits.approval_s), asyncio.TaskGroup() as group:
                asked = {
                    party: group.create_task(self._approval(party, proposal, undecided))
                    for party in self._record.parties
                }
        except TimeoutError:
            seconds, names = f"{self._parts.limits.approval_s:g}", ", ".join(sorted(undecided))
            raise TransportError("run.undecided", f"not approved within {seconds} s: {names}") from None
        except ExceptionGroup as group_of:
            raise group_of.exceptions[0] from None
        return {party: task.result() for party, task in asked.items()}

    async def _approval(self, party: PartyId, proposal: bytes, undecided: set[PartyId]) -> bytes:
        """One party's approval; asks again while it is still deciding or out of reach."""
        limits, pause, told = self._parts.limits, self._parts.limits.poll_s, ""
        while True:
            try:
                answer = await self._parts.courier.ask(party, "propose", proposal, limits.ask_s)
                verdict = self._parts.read_decision(self._run, party, answer)
            except TransportError as error:
                verdict = Verdict(VerdictKind.PENDING, error.code, error.public)
            except FedCreditError as error:
                raise type(error)(error.code, f"{party}: {error.public}", error.detail) from None
            if verdict.kind is VerdictKind.APPROVED:
                undecided.discard(party)
                self._event(party, "approved", f"{party} approved")
                return answer
            if verdict.kind is VerdictKind.DENIED:
                text = f"{party} denied: {verdict.text} [{verdict.code}]"
                self._event(party, "denied", text)
                raise RunEnd(RunState.FAILED, text)
            if verdict.text != told:
                told = verdict.text
                self._event(party, "pending", f"{party}: {told}" if told else f"{party} has not decided yet")
            self._state(RunState.WAITING, f"not approved yet: {', '.join(sorted(undecided))}")
            await asyncio.sleep(pause)
            pause = min(pause * _POLL_GROWTH, limits.poll_most_s)

    def _event(self, party: str, event: str, text: str) -> None:
        self._parts.registry.event(self._run, party, event, text)

    def _state(self, state: RunState, detail: str) -> None:
        """Moves the run on, unless the operator has stopped it meanwhile."""
        if self._stop.is_set():
            return
        try:
            self._parts.registry.set_state(self._run, state, detail)
        except SpecError:
            if self._parts.registry.get(self._run).state is not RunState.STOPPING:
                raise
            self._stop.set()

    def _end(self, end: RunEnd) -> RunState:
        """Writes the end down; a run that was being stopped and failed meanwhile is stopped."""
        now = self._parts.registry.get(self._run)
        stopping = now.state is RunState.STOPPING
        state = RunState.STOPPED if stopping and end.state is RunState.FAILED else end.state
        asked = stopping and end.state is RunState.STOPPED and now.detail  # by whom, or who was revoked
        self._parts.registry.set_state(self._run, state, str(now.detail) if asked else end.detail)
        return state
