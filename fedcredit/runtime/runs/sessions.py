"""The running part of a run: everyone's session at once, nodes that die and come back, nodes that do not, the stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from fedcredit.errors import FedCreditError, TransportError
from fedcredit.runtime.party_end import SECONDARY
from fedcredit.runtime.runs.driver_parts import DriverParts, Ended
from fedcredit.runtime.runs.registry import RunRecord, RunState
from fedcredit.types import COORDINATOR, PartyId

__all__ = ["RunEnd", "Sessions"]

_OWN_RESTARTS = 5  # of the coordinator's worker, which goes on where its checkpoints are
_OWN_PAUSE_S = 1.0
_ECHOES = SECONDARY | {"run.stopped"}  # what parties say whom another party's failure has ended


class RunEnd(Exception):  # noqa: N818 -- an end, not always an error
    """A run is over.

    Args:
        state: How.
        detail: Public text.
    """

    def __init__(self, state: RunState, detail: str) -> None:
        super().__init__(state, detail)
        self.state, self.detail = state, detail


class _Missing(Exception):  # noqa: N818 -- as above
    """A party did not come back."""

    def __init__(self, party: PartyId, text: str) -> None:
        super().__init__(party, text)
        self.party, self.text = party, text


class _RunKeys(msgspec.Struct):
    on_missing: str = "stop"


class _SpecKeys(msgspec.Struct):
    run: _RunKeys = msgspec.field(default_factory=_RunKeys)


class Sessions:
    """All sessions of one run.

    Args:
        parts: What the driver works with.
        record: The run.
        orders: Session order by whether a party has finished already.
        stop: Set when the operator wants the run to stop.
    """

    def __init__(
        self, parts: DriverParts, record: RunRecord, orders: Mapping[bool, bytes], stop: asyncio.Event
    ) -> None:
        self._parts, self._record, self._orders, self._stop = parts, record, orders, stop
        self._ended = any(self._finished(party, raw) for party, raw in parts.registry.outcomes(record.run).items())
        self._lost: set[PartyId] = set()
        self._tasks: dict[asyncio.Task[Ended], PartyId] = {}
        self._failures: dict[PartyId, Ended] = {}

    async def through(self) -> RunEnd:
        """Goes on until all have ended, and says how the run ended."""
        self._tasks = {asyncio.create_task(self._session(party)): party for party in self._record.parties}
        self._tasks[asyncio.create_task(self._own())] = COORDINATOR
        stop = asyncio.create_task(self._stop.wait())
        try:
            async with asyncio.timeout(self._parts.limits.session_s):
                return await self._until_over(stop)
        except TimeoutError:
            text = f"not done within {self._parts.limits.session_s:g} s: {self._names()}"
            await self._halt(text)
            return RunEnd(RunState.FAILED, text)
        finally:
            stop.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(stop, *self._tasks, return_exceptions=True)

    async def _until_over(self, stop: asyncio.Task[bool]) -> RunEnd:
        limits = self._parts.limits
        while self._tasks:
            patience = limits.settle_s if self._failures else None
            waits: set[asyncio.Task[Any]] = {stop, *self._tasks}
            done, _ = await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                await self._halt("stopped by the operator")
                return RunEnd(RunState.STOPPED, "stopped by the operator")
            if not done:
                await self._halt(self._why())
                break
            for task in done:
                party = self._tasks.pop(task)
                error = task.exception()
                if isinstance(error, _Missing):
                    return await self._without(error.party, error.text)
                self._note(party, task.result())
        await self._close_up()
        return await self._verdict()

    def _finished(self, party: PartyId, raw: bytes) -> bool:
        """Whether a party had finished when an earlier driver of this run wrote its last word down."""
        try:
            return party != COORDINATOR and self._parts.read_finished(self._record.run, party, raw).ok
        except FedCreditError:
            return False

    async def _close_up(self) -> None:
        """Whoever failed although another has ended has all it needs, since nobody ends before: it is told so, once."""
        if self._ended:
            for party in list(self._failures):
                self._event(party, "session", f"{party} is told that the run has ended")
                try:
                    if (await self._told_end(party)).ok:
                        del self._failures[party]
                except FedCreditError as error:
                    self._event(party, "lost", f"{party}: {error.public} [{error.code}]")

    async def _told_end(self, party: PartyId) -> Ended:
        order = self._orders[True]
        if party == COORDINATOR:
            return self._read(party, await self._parts.own_worker(order))
        return self._read(party, await self._parts.courier.ask(party, "session", order, self._parts.limits.ask_s))

    def _note(self, party: PartyId, ended: Ended) -> None:
        if not ended.ok:
            self._failures[party] = ended

    async def _verdict(self) -> RunEnd:
        if not self._failures:
            return RunEnd(RunState.FINISHED, "all parties have finished")
        blamed = {PartyId(ended.culprit) for ended in self._failures.values()} & self._lost
        if blamed:
            party = min(blamed)
            return await self._without(party, f"{party} is gone, and the others could not wait for it any longer")
        return RunEnd(RunState.FAILED, self._why())

    def _why(self) -> str:
        """The failure that explains the others: the first that is no echo and blames nobody else, or the first."""
        first = [party for party, ended in self._failures.items() if ended.code not in _ECHOES]
        blameless = [party for party in first if self._failures[party].culprit in {"", party}]
        party = (blameless or first or list(self._failures))[0]
        ended = self._failures[party]
        due = f" (due to {ended.culprit})" if ended.culprit not in {"", party} else ""
        return f"{party}: {ended.text}{due} [{ended.code}]"

    async def _without(self, party: PartyId, text: str) -> RunEnd:
        """A party is missing for good: stops the others, or has them go on without it, as the spec says."""
        self._event(party, "missing", text)
        await self._halt(text)
        if self._policy() != "continue":
            return RunEnd(RunState.FAILED, f"{text} [run.missing]")
        try:
            following = self._parts.make_continuation(self._record.run, frozenset({party}))
        except FedCreditError as error:
            return RunEnd(RunState.FAILED, f"{text} [run.missing]; it cannot go on without it: {error}")
        self._event(party, "continued", f"goes on without {party} as run {following}")
        return RunEnd(RunState.FAILED, f"{text} [run.missing]; continued without it as run {following}")

    def _policy(self) -> str:
        return msgspec.json.decode(self._record.spec_json, type=_SpecKeys).run.on_missing

    async def _halt(self, reason: str) -> None:
        """Tells everyone through the exchange, and waits a bounded time for their last words."""
        self._parts.registry.cut(self._record.run, reason)
        left = {task: party for task, party in self._tasks.items() if party not in self._lost}
        if left:
            done, late = await asyncio.wait(left, timeout=self._parts.limits.stop_s)
            for task in done:
                if task.exception() is None:
                    self._note(left[task], task.result())
            if late:
                names = ", ".join(sorted(left[task] for task in late))
                self._event("", "late", f"no last word within {self._parts.limits.stop_s:g} s: {names}")

    def _names(self) -> str:
        return ", ".join(sorted(self._tasks.values()))

    async def _session(self, party: PartyId) -> Ended:
        """One party's session; its node gets the order again whenever it was gone and is back.

        Raises:
            _Missing: it did not come back in time, or too often.
        """
        for again in range(self._parts.limits.resends + 1):
            self._event(party, "session", f"{party} has its session order" + (" again" if again else ""))
            try:
                order = self._orders[self._ended]
                answer = await self._parts.courier.ask(party, "session", order, self._parts.limits.session_s)
            except TransportError as error:
                self._event(party, "lost", f"{party}: {error.public} [{error.code}]")
                await self._back(party, again)
                continue
            except FedCreditError as error:
                return self._told(party, Ended(ok=False, code=error.code, text=error.public))
            return self._read(party, answer)
        raise _Missing(party, f"{party} was gone {self._parts.limits.resends + 1} times")

    async def _back(self, party: PartyId, before: int) -> None:
        """Waits until a party is connected again; longer each time, for one that keeps falling over."""
        self._lost.add(party)
        limits = self._parts.limits
        try:
            async with asyncio.timeout(limits.missing_s):
                await asyncio.sleep(min(limits.look_s * 2**before, limits.poll_most_s))
                while party not in await self._online():  # noqa: ASYNC110 -- nobody tells; the courier is asked
                    await asyncio.sleep(limits.look_s)
        except TimeoutError:
            raise _Missing(party, f"{party} did not come back within {limits.missing_s:g} s") from None
        self._lost.discard(party)
        self._event(party, "back", f"{party} is connected again")

    async def _online(self) -> frozenset[PartyId]:
        try:
            return await self._parts.courier.online()
        except TransportError:
            return frozenset()

    async def _own(self) -> Ended:
        """The coordinator's own role; its worker is started again when it dies."""
        for again in range(_OWN_RESTARTS + 1):
            try:
                return self._read(COORDINATOR, await self._parts.own_worker(self._orders[self._ended]))
            except TransportError as error:
                self._event(COORDINATOR, "lost", f"{COORDINATOR}: {error.public} [{error.code}]")
                if again == _OWN_RESTARTS:
                    return self._told(COORDINATOR, Ended(ok=False, code=error.code, text=error.public))
                await asyncio.sleep(_OWN_PAUSE_S)
            except FedCreditError as error:
                return self._told(COORDINATOR, Ended(ok=False, code=error.code, text=error.public))
        raise TransportError("run.own-worker", "the coordinator's worker does not stay up")

    def _read(self, party: PartyId, answer: bytes) -> Ended:
        """A party's last word; bytes that do not verify are the party's failure."""
        try:
            ended = self._parts.read_finished(self._record.run, party, answer)
        except FedCreditError as error:
            return self._told(party, Ended(ok=False, code=error.code, text=error.public))
        self._parts.registry.outcome(self._record.run, party, answer)
        self._ended = self._ended or (ended.ok and party != COORDINATOR)
        return self._told(party, ended)

    def _told(self, party: PartyId, ended: Ended) -> Ended:
        text = f"{party} has finished" if ended.ok else f"{party}: {ended.text} [{ended.code}]"
        self._event(party, "finished" if ended.ok else "failed", text)
        return ended

    def _event(self, party: str, event: str, text: str) -> None:
        self._parts.registry.event(self._record.run, party, event, text)
