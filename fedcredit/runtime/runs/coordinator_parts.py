"""How the coordinator drives runs: its proposals and orders, what the nodes answer, runs that go on without a party.

No model is imported here: the process that drives a run starts in half the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from fedcredit.errors import SpecError
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.needs import check_registers
from fedcredit.runtime.runs.driver_parts import Courier, DriverLimits, DriverParts, Ended, Verdict, VerdictKind
from fedcredit.runtime.runs.proposal import (
    SessionOrder,
    approvals_of,
    check_finished,
    check_proposal,
    make_proposal,
    read_decision,
)
from fedcredit.runtime.runs.registry import Registry, RunRecord
from fedcredit.runtime.runs.sessions import RunEnd
from fedcredit.runtime.session.files import own_approval
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.travel import read_travelling, travelling_json, without
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import encode_struct

__all__ = ["driver_parts"]


def driver_parts(
    home: Home,
    registry: Registry,
    courier: Courier,
    own_worker: Callable[[bytes], Awaitable[bytes]],
    limits: DriverLimits | None = None,
) -> DriverParts:
    """Everything that drives runs from the coordinator's home.

    Args:
        home: The coordinator's.
        registry: Its book of runs.
        courier: Carries messages to the nodes.
        own_worker: Plays the coordinator's own role in a process of its own (`run_session`).
        limits: Waits.
    """
    return DriverParts(
        registry=registry,
        courier=courier,
        make_proposal=partial(_propose, home, registry),
        read_decision=partial(_verdict, home, registry),
        make_order=partial(_order, home),
        read_finished=partial(_ended, home),
        own_worker=own_worker,
        make_continuation=partial(_continue, registry),
        limits=limits or DriverLimits(),
        rounds=partial(_rounds, home),
    )


async def _rounds(home: Home, parts: DriverParts, record: RunRecord, order: bytes, stop: asyncio.Event) -> RunEnd:
    from fedcredit.runtime.rounds.run import Rounds  # noqa: PLC0415 -- loads what other models' drivers do not need

    return await Rounds(parts, record, order, stop, home).through()


def _propose(home: Home, registry: Registry, run: RunId) -> bytes:
    record = registry.get(run)
    missing: list[str] = []
    if record.continues:
        missing = [party for party in registry.get(RunId(record.continues)).parties if party not in record.parties]
    made = datetime.fromisoformat(record.created)
    return make_proposal(home, run, record.spec_json, continues=record.continues, missing=missing, made=made)


def _verdict(home: Home, registry: Registry, run: RunId, party: PartyId, answer: bytes) -> Verdict:
    checked = check_proposal(_propose(home, registry, run), home.roster, datetime.now(UTC))
    decision = read_decision(answer, party, checked, home.roster)
    return Verdict(VerdictKind(decision.state), decision.code, decision.text)


def _order(home: Home, run: RunId, proposal: bytes, answers: Mapping[PartyId, bytes], ended: bool) -> bytes:  # noqa: FBT001 - as `DriverParts` calls it
    checked = check_proposal(proposal, home.roster, datetime.now(UTC))
    if checked.run != run:
        raise SpecError("proposal.run", f"the proposal is one of run {checked.run}, not of {run}")
    own = own_approval(home, checked)
    approvals = {party: read_decision(raw, party, checked, home.roster).approval for party, raw in answers.items()}
    ordered = [own if party == COORDINATOR else approvals[party] for party in checked.roster]
    order = SessionOrder(proposal=proposal, approvals=ordered, ended=ended)
    check_registers(approvals_of(order, checked, home.roster), checked)
    return encode_struct(order)


def _ended(home: Home, run: RunId, party: PartyId, answer: bytes) -> Ended:
    finished = check_finished(answer, party, run, home.roster)
    return Ended(finished.ok, finished.code, finished.text, finished.culprit)


def _continue(registry: Registry, run: RunId, missing: frozenset[PartyId]) -> RunId:
    """Enters the run that goes on without some parties.

    Raises:
        SpecError: the spec does not allow it, or too few are left.
    """
    record = registry.get(run)
    spec, data = read_travelling(record.spec_json)
    left = without(spec, missing)
    text = travelling_json(left, data)
    return registry.submit(text, record.name, spec_digest(left), record.model, record.data, continues=run)
