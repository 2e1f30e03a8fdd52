"""The coordinator's part in a run: proposals, orders, and sums of ciphertexts that it cannot read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from fedcredit.errors import FedCreditError, SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.runtime.home import Home
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.proposal import (
    Checked,
    SessionOrder,
    approvals_of,
    check_finished,
    check_proposal,
    make_proposal,
    read_decision,
    read_order,
    signed_approval,
)
from fedcredit.runtime.registry import Registry
from fedcredit.runtime.run_driver_parts import Courier, DriverLimits, DriverParts, Ended, Verdict, VerdictKind
from fedcredit.runtime.session import Part, Timing, play
from fedcredit.runtime.session_files import (
    EPHEMERAL,
    FINISHED_FILE,
    ended_badly,
    ended_well,
    kept_secret,
    public_of,
    unfinished_files,
)
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.travel import read_travelling, travelling_json, without
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import encode_struct

__all__ = ["driver_parts", "run_session"]


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
    )


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
    ephemeral = kept_secret(unfinished_files(home, run), EPHEMERAL)
    own = signed_approval(home, checked, public_of(ephemeral), "")
    approvals = {party: read_decision(raw, party, checked, home.roster).approval for party, raw in answers.items()}
    ordered = [own if party == COORDINATOR else approvals[party] for party in checked.roster]
    return encode_struct(SessionOrder(proposal=proposal, approvals=ordered, ended=ended))


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


def run_session(home: Home, raw: bytes) -> bytes:
    """Plays the coordinator's role; again for the same order, goes on, or says how it ended.

    Returns:
        Bytes of a signed `Finished`.

    Raises:
        PeerError: the order does not verify.
        SpecError: it is of a model that does not run between houses.
    """
    order = read_order(raw)
    checked = check_proposal(order.proposal, home.roster, datetime.now(UTC))
    approvals = approvals_of(order, checked, home.roster)
    ended = home.runs / checked.run / FINISHED_FILE
    if ended.exists():
        return ended.read_bytes()
    model = MODEL_RUNS.get(checked.spec.run.model)
    if model is None:
        raise SpecError("proposal.model", f"model {checked.spec.run.model} does not run between houses")
    files = unfinished_files(home, checked.run)
    lock = FolderLock(files.folder)
    try:
        with Ledger(":memory:") as ledger:  # it has no records: nothing of its own can be disclosed
            part = Part(
                home=home,
                checked=checked,
                approvals=approvals,
                ephemeral=kept_secret(files, EPHEMERAL),
                schemas=model.schemas,
                policy=_policy(checked),
                ledger=ledger,
                files=files,
                timing=Timing(timeout_s=checked.spec.network.timeout_s),
            )
            play(part, lambda channel: model.coordinate(channel, checked.spec), lambda _: None, ended=order.ended)
            return ended_well(part, b"")
    except (FedCreditError, OSError) as error:
        return ended_badly(home, checked, files, error)
    finally:
        lock.close()


def _policy(checked: Checked) -> Policy:
    """What may leave the coordinator: messages of this run to its parties, until the proposal expires."""
    return Policy(
        counterparties=tuple(checked.spec.parties),
        protocols=tuple(schema.name for schema in MODEL_RUNS[checked.spec.run.model].schemas),
        messages=("*",),
        runs=(checked.proposal.spec_digest,),
        expires=datetime.fromisoformat(checked.proposal.expires),
        max_message_bytes=1 << 31,
        max_run_bytes=1 << 50,
        max_run_messages=1 << 40,
    )
