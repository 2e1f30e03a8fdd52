"""The running part of a run that is learned in rounds: visits to nodes over the courier, banks that stay away, the end.

The coordinator computes next to nothing here, so its role lives in the process that drives the run. What it has heard
stands in the folder of the run; a driver after this one asks the same questions again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedcredit.errors import FedCreditError, PeerError, SpecError, TransportError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import House
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.consent import run_folder
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.leftovers import mend_lines
from fedcredit.runtime.rounds.driver import FileSteps, RoundDriver, RoundLimits, Steps, Taken, Visit
from fedcredit.runtime.rounds.models import ROUND_MODELS
from fedcredit.runtime.rounds.node import context_of
from fedcredit.runtime.rounds.words import NodeVisit, NodeVisited
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.runs.driver_parts import DriverParts, Ended
from fedcredit.runtime.runs.proposal import Approval, Checked, approvals_of, check_proposal, read_order
from fedcredit.runtime.runs.registry import RunRecord, RunState
from fedcredit.runtime.runs.sessions import RunEnd
from fedcredit.runtime.session.files import EPHEMERAL, check_bound, ended_well, kept_secret, settled, unfinished_files
from fedcredit.runtime.session.session import ATTEMPT_FILE, Part, Timing
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.spec.model import FedavgSection
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import decode_struct, encode_struct

__all__ = ["CoordinatorRounds", "Rounds", "coordinator_rounds"]

_STEPS = "steps"
_STOPPED_S = 60.0  # for the word to a bank that the run goes on or ends without it


@dataclass(frozen=True)
class CoordinatorRounds:
    """The coordinator's side of one run, opened.

    Args:
        driver: Asks the banks.
        steps: What drivers before this one have heard.
        limits: Waits.
        close: Closes the coordinator's books; returns its signed `Finished`.
    """

    driver: RoundDriver
    steps: Steps
    limits: RoundLimits
    close: Callable[[], bytes]


@contextmanager
def coordinator_rounds(home: Home, order: bytes, visit: Visit) -> Iterator[CoordinatorRounds]:
    """Opens the coordinator's part of a run in its home.

    Args:
        home: The coordinator's.
        order: The session order.
        visit: Carries questions to the banks.

    Raises:
        FedCreditError: the order does not verify, or the folder of the run is damaged or another process works in it.
    """
    read = read_order(order)
    checked = check_proposal(read.proposal, home.roster, datetime.now(UTC))
    approvals = approvals_of(read, checked, home.roster)
    files = unfinished_files(home, checked.run)
    lock = FolderLock(files.folder)
    try:
        check_bound(files.folder, checked)
        with Ledger(":memory:") as ledger:  # it has no records: nothing of its own can be disclosed
            part = _part(home, checked, approvals, (files, ledger))
            mend_lines(part.audit_file)
            audit = AuditLog(part.audit_file, COORDINATOR, checked.run, _now)
            try:
                house = House(COORDINATOR, home.identity, part.policy, ledger, audit, _now)
                relay = ROUND_MODELS[checked.spec.run.model].relay(checked.spec, checked.run)
                limits = RoundLimits(round_s=(checked.spec.fedavg or FedavgSection()).round_timeout_s)
                driver = RoundDriver(context_of(home, checked), house, relay, visit, limits)

                def close() -> bytes:
                    audit.suspend()
                    return ended_well(part, b"")

                yield CoordinatorRounds(driver, FileSteps(files.checkpoints / _STEPS), limits, close)
            finally:
                audit.suspend()
    finally:
        lock.close()


def _part(home: Home, checked: Checked, approvals: Mapping[PartyId, Approval], kept: tuple[RunFiles, Ledger]) -> Part:
    files, ledger = kept
    model = ROUND_MODELS.get(checked.spec.run.model)
    if model is None:
        raise SpecError("proposal.model", f"model {checked.spec.run.model} is not learned in rounds")
    ephemeral = kept_secret(files, EPHEMERAL)
    if not (files.folder / ATTEMPT_FILE).exists():
        replace_file(files.folder / ATTEMPT_FILE, b"1")
    policy = Policy(
        counterparties=tuple(checked.spec.parties),
        protocols=tuple(schema.name for schema in model.schemas),
        messages=("*",),
        runs=(checked.proposal.spec_digest,),
        expires=datetime.fromisoformat(checked.proposal.expires),
        max_message_bytes=1 << 31,
        max_run_bytes=1 << 50,
        max_run_messages=1 << 40,
    )
    return Part(
        home=home,
        checked=checked,
        approvals=approvals,
        ephemeral=ephemeral,
        schemas=model.schemas,
        policy=policy,
        ledger=ledger,
        files=files,
        timing=Timing(),
    )


def _now() -> datetime:
    return datetime.now(UTC)


class Rounds:
    """All rounds of one run between houses.

    Args:
        parts: What the driver of runs works with.
        record: The run.
        order: Its session order.
        stop: Set when the operator wants the run to stop.
        home: The coordinator's.
    """

    def __init__(self, parts: DriverParts, record: RunRecord, order: bytes, stop: asyncio.Event, home: Home) -> None:
        self._parts, self._record, self._order, self._stop, self._home = parts, record, order, stop, home
        self._patience = RoundLimits().round_s
        self._told: set[PartyId] = set()

    async def through(self) -> RunEnd:
        """Goes on until the banks have their model, and says how the run ended."""
        run = self._record.run
        if not run_folder(self._home, run).exists() and settled(self._home, run) is not None:
            return RunEnd(RunState.FINISHED, "all parties have finished")  # as a driver before this one has seen
        try:
            with coordinator_rounds(self._home, self._order, self._visit) as opened:
                self._patience = opened.limits.round_s
                return await self._through(opened)
        except FedCreditError as error:
            await self._without(self._record.parties, str(error))
            return RunEnd(RunState.FAILED, str(error))

    async def _through(self, opened: CoordinatorRounds) -> RunEnd:
        driver = opened.driver
        if not await self._unless_stopped(driver.through(opened.steps, self._listen)):
            await self._without(self._record.parties, "stopped by the operator")
            return RunEnd(RunState.STOPPED, "stopped by the operator")
        await self._without([one.party for one in driver.lost], "the others went on without it")
        ends = await asyncio.gather(*(self._end(party) for party in sorted(driver.done)))
        failed = [f"{party}: {ended.text} [{ended.code}]" for party, ended in ends if not ended.ok]
        if failed:
            return RunEnd(RunState.FAILED, failed[0])
        self._parts.registry.outcome(self._record.run, COORDINATOR, opened.close())
        left = f"; without {', '.join(map(str, driver.lost))}" if driver.lost else ""
        return RunEnd(RunState.FINISHED, f"all parties have finished{left}"[:1000])

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _listen(self, taken: Taken) -> None:
        text = f"step {taken.number}: {len(taken.answered)} banks in {taken.seconds:.1f} s"
        self._event("", "round", text)
        for one in taken.lost:
            self._event(one.party, "missing", f"the others go on without {one}")

    async def _visit(self, party: PartyId, question: bytes) -> bytes:
        """See `fedcredit.runtime.rounds.driver.Visit`."""
        if party not in self._told:
            self._told.add(party)
            self._event(party, "session", f"{party} has its session order")
        visited = await self._asked(party, NodeVisit(order=self._order, question=question), self._patience)
        if visited.answer:
            return visited.answer
        ended = self._parts.read_finished(self._record.run, party, visited.finished)
        raise PeerError(ended.code or "rounds.ended", ended.text or "it has ended the run", culprit=party)

    async def _end(self, party: PartyId) -> tuple[PartyId, Ended]:
        """Has a bank close its books; it is asked again while it is out of reach and there is time."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self._patience, self._parts.limits.look_s
        while True:
            try:
                visited = await self._asked(party, NodeVisit(order=self._order), self._patience)
                ended = self._parts.read_finished(self._record.run, party, visited.finished)
                self._parts.registry.outcome(self._record.run, party, visited.finished)
                break
            except FedCreditError as error:
                ended = Ended(ok=False, code=error.code, text=error.public)
                if not isinstance(error, TransportError) or loop.time() > until:
                    break
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._parts.limits.poll_most_s)
        text = f"{party} has finished" if ended.ok else f"{party}: {ended.text} [{ended.code}]"
        self._event(party, "finished" if ended.ok else "failed", text)
        return party, ended

    async def _without(self, parties: Iterable[PartyId], why: str) -> None:
        """Tells banks that nothing more will be asked of them; as far as they can be reached."""

        async def tell(party: PartyId) -> None:
            with suppress(FedCreditError):
                await self._asked(party, NodeVisit(order=self._order, stopped=why[:1000]), _STOPPED_S)

        await asyncio.gather(*(tell(party) for party in parties if party in self._told))

    async def _asked(self, party: PartyId, visit: NodeVisit, patience: float) -> NodeVisited:
        raw = await self._parts.courier.ask(party, "visit", encode_struct(visit), patience)
        return decode_struct(NodeVisited, raw, f"an answer of {party}")

    def _event(self, party: str, event: str, text: str) -> None:
        self._parts.registry.event(self._record.run, party, event, text)
