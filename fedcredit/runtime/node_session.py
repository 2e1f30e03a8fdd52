"""A node's part in a run: it answers the proposal, plays its role over the exchange, and keeps what is its own.

Everything of a run that has not ended stands in ``state/runs/RUN`` of the home; what is left of it then moves to
``runs/RUN``, without the secrets. A process that is killed leaves the folder, and the next one goes on in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_table
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import FedCreditError, IntegrityError, PolicyDenied, SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy, load_policy
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.consent import FAILED_FILE, check_bounds, consented, note_proposal, public_error, run_policy
from fedcredit.runtime.escrow import FileEscrow, NoEscrow
from fedcredit.runtime.home import Home
from fedcredit.runtime.leftovers import earlier_messages
from fedcredit.runtime.model_run import ModelRun, Outcome, Seat
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Progress, StageClock
from fedcredit.runtime.proposal import (
    Approval,
    Checked,
    Decision,
    approvals_of,
    check_proposal,
    read_order,
    signed_approval,
)
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.session import Part, Timing, play
from fedcredit.runtime.session_files import (
    EPHEMERAL,
    FINISHED_FILE,
    PROGRESS_FILE,
    ended_badly,
    ended_well,
    kept_secret,
    public_of,
    unfinished_files,
)
from fedcredit.runtime.summary import Effort, leakage, summarise
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.spec.model import PartySection, RunSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId
from fedcredit.wire.message import encode_struct

__all__ = ["consider", "run_session"]

_SEED_FILE = "run"


def consider(home: Home, raw: bytes) -> bytes:
    """A node's decision on a proposal; the same again for the same proposal.

    Returns:
        Bytes of a `Decision`; a refusal is one too.
    """
    try:
        checked = check_proposal(raw, home.roster, datetime.now(UTC))
        policy = load_policy(home.policy)
        check_bounds(home, checked, policy, datetime.now(UTC))
        note_proposal(home, checked)
        if not consented(home, checked, policy):
            text = f"the people of {home.party} have not decided"
            return encode_struct(Decision(party=home.party, state="pending", text=text))
        files = unfinished_files(home, checked.run)
        records = _table(home, checked).digest if checked.spec.simulation else ""
        approval = signed_approval(home, checked, public_of(kept_secret(files, EPHEMERAL)), records)
        return encode_struct(Decision(party=home.party, state="approved", approval=approval))
    except (FedCreditError, OSError) as error:
        code, text, _ = public_error(error)
        _note_refusal(home, raw, code)
        return encode_struct(Decision(party=home.party, state="denied", code=code, text=text))


def run_session(home: Home, raw: bytes, finish: Callable[[Path, PartyId], None] | None = None) -> bytes:
    """Plays this node's role; again for the same order, goes on where it was, or says how it ended.

    Args:
        home: The node's.
        raw: A session order.
        finish: Adds what else can be made of the party's files, such as a report, before the folder gets its place.

    Returns:
        Bytes of a signed `Finished`.

    Raises:
        PeerError: the order is not the coordinator's, or lacks an approval.
    """
    order = read_order(raw)
    checked = check_proposal(order.proposal, home.roster, datetime.now(UTC))
    approvals = approvals_of(order, checked, home.roster)
    ended = home.runs / checked.run / FINISHED_FILE
    if ended.exists():
        return ended.read_bytes()
    files = unfinished_files(home, checked.run)
    if approvals[home.party].ephemeral != public_of(kept_secret(files, EPHEMERAL)):
        raise IntegrityError("order.approval", f"{home.party}: the approval in the order is not of this house's keys")
    lock = FolderLock(files.folder)
    try:
        (files.folder / FAILED_FILE).unlink(missing_ok=True)
        with ExitStack() as stack:
            node = _Node(home, checked, approvals, files, stack)
            node.play(ended=order.ended)
            return node.close(finish)
    except (FedCreditError, OSError) as error:
        return ended_badly(home, checked, files, error)
    finally:
        lock.close()


@dataclass
class _Progress:
    """Tells the house's people how far a run is."""

    path: Path
    last: float = 0.0

    def __call__(self, at: Progress) -> None:
        now = time.monotonic()
        if at.done is not None and at.done != at.total and now - self.last < 1.0:
            return
        self.last = now
        content = {"stage": at.stage, "done": at.done, "total": at.total, "time": datetime.now(UTC).isoformat()}
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self.path)


class _Node:
    """One node in one run."""

    def __init__(
        self, home: Home, checked: Checked, approvals: Mapping[PartyId, Approval], files: RunFiles, stack: ExitStack
    ) -> None:
        self._home, self._checked, self._files = home, checked, files
        self._spec, self._party = _own_spec(home, checked), home.party
        self._model: ModelRun = MODEL_RUNS[self._spec.run.model]
        policy = load_policy(home.policy)
        now = datetime.now(UTC)
        check_bounds(home, checked, policy, now)
        if not consented(home, checked, policy):
            raise PolicyDenied("consent.pending", f"the people of {home.party} have not approved this run")
        policy = run_policy(policy, self._spec, checked.proposal.spec_digest)
        self._ledger = stack.enter_context(Ledger(home.state / "ledger.sqlite", policy.cap_rules()))
        self._table = _table(home, checked)
        self._clock = StageClock(
            home.party, {**self._model.seconds, "end": "score"}, _Progress(files.folder / PROGRESS_FILE)
        )
        self._secret, self._stack = kept_secret(files, _SEED_FILE), stack
        self._records = {party: approvals[party].records for party in self._spec.parties}
        if self._spec.simulation and self._records[home.party] != self._table.digest:
            raise IntegrityError("run.records", f"{home.party}: its records have changed since it approved this run")
        self._part = self._as_part(policy, approvals)

    def _as_part(self, policy: Policy, approvals: Mapping[PartyId, Approval]) -> Part:
        node, home = self._home.node, self._home
        timing = Timing(
            node.exchange.connect_timeout_s,
            node.exchange.reconnect_s,
            self._spec.network.timeout_s,
            node.run.busy_timeout_s,
        )
        return Part(
            home=home,
            checked=self._checked,
            approvals=approvals,
            ephemeral=kept_secret(self._files, EPHEMERAL),
            schemas=self._model.schemas,
            policy=policy,
            ledger=self._ledger,
            files=self._files,
            timing=timing,
            progress=self._clock,
        )

    def play(self, *, ended: bool) -> None:
        """The role, to its end."""
        started = time.perf_counter()
        play(self._part, self._role, lambda result: self._write(result, started), ended=ended)

    async def _role(self, channel: Channel) -> Any:
        escrow = FileEscrow(self._files.folder / "escrow" / f"{self._party}.jsonl")
        try:
            keep = KeptSecrets(RunSecret(self._secret), self._draws(), escrow)
            holding = Holding(self._spec, self._checked.run_digest, self._table, keep)
            checkpoints = FileCheckpoints(self._files.checkpoints / self._party)
            seat = Seat(channel, holding, checkpoints, self._clock.report)
            return await self._model.role(self._spec, seat, self._held_out)
        finally:
            escrow.close()

    def _draws(self) -> Entropy:
        """Source of noise and order: in a trial that of the simulation, which anyone can repeat."""
        if self._spec.simulation:
            return houses.repeatable_draws(houses.Origin(self._spec, self._records), self._party)
        bound = (self._checked.run_digest.encode(), self._table.digest.encode())
        return RunSecret(self._secret).entropy("node/draws", *bound)

    def _held_out(self, ids: Any) -> Any:
        mask = held_out_rows(self._table, self._spec.split, self._home.folder)
        held = frozenset(one for one, test in zip(self._table.ids.to_list(), mask, strict=True) if test)
        return np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))

    def _write(self, result: Any, started: float) -> None:
        """Everything this party keeps of the run."""
        files, party = self._files, self._party
        keep = KeptSecrets(RunSecret(self._secret), self._draws(), NoEscrow())
        ledger = {party: self._ledger.report(self._checked.run)}
        outcome = Outcome(
            self._checked.spec,
            self._checked.run,
            {party: self._table},
            {party: result},
            {party: keep},
            ledger,
            earlier_messages(files.audit),
        )
        written = self._model.own(files, outcome, party)
        files.text("spec.toml", spec_toml(self._checked.spec))
        files.transcript(outcome.transcript)
        files.json("leakage.json", leakage(self._model, outcome, written))
        seconds = {**self._clock.finish(), "total": time.perf_counter() - started}
        effort = Effort(seconds, {party: time.process_time()}, 0.0, self._part.attempts - 1, seeded=False)
        proposal = self._checked.proposal
        deployed = {"party": party, "continues": proposal.continues or None, "missing": list(proposal.missing)}
        files.json("summary.json", {**summarise(self._model, outcome, written, effort), "deployed": deployed})

    def close(self, finish: Callable[[Path, PartyId], None] | None) -> bytes:
        """Ends the run in this house; returns what the coordinator is told."""
        self._ledger.close_run(self._checked.run)
        return ended_well(self._part, _shared(self._files, self._spec, self._party), finish)


def _shared(files: RunFiles, spec: RunSpec, party: PartyId) -> bytes:
    """What this party publishes of its result: in a trial the label holder's figures, else nothing."""
    if party != spec.label_holder.name or not spec.simulation:
        return b""
    summary = json.loads((files.folder / "summary.json").read_text("utf-8"))
    names = ("rows_train", "rows_test", "auc_test", "ks_test", "auc_label_holder_alone", "model_digest", "seconds")
    return json.dumps({name: summary[name] for name in names if name in summary}).encode()


def _own_spec(home: Home, checked: Checked) -> RunSpec:
    """The spec with this house's own places of records."""
    records = home.node.data[checked.data]
    sections = [
        party.model_copy(update={"source": records.source, "query": records.query})
        if party.name == home.party
        else party
        for party in checked.spec.party
    ]
    split = checked.spec.split
    if split.test_ids is not None:
        split = split.model_copy(update={"test_ids": records.test_ids})
    return checked.spec.model_copy(update={"party": tuple(sections), "split": split})


def _table(home: Home, checked: Checked) -> HolderTable:
    """The house's records as the spec wants them."""
    spec = _own_spec(home, checked)
    mine: PartySection = next(party for party in spec.party if party.name == home.party)
    if mine.label is not None and checked.spec.split.test_ids is not None and spec.split.test_ids is None:
        key = f"data.{checked.data}.test_ids"
        raise SpecError("proposal.test-ids", f"{key}: missing in node.toml; the run holds out ids from a file")
    return load_table(mine, home.folder, time=spec.split.time if mine.label is not None else None)


def _note_refusal(home: Home, raw: bytes, code: str) -> None:
    """One line a refused proposal, in the log of the house."""
    line = {"time": datetime.now(UTC).isoformat(), "event": "proposal refused", "code": code, "bytes": len(raw)}
    file = os.open(home.logs / "refusals.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(file)
