"""A node's part in a run: it answers the proposal, plays its role over the exchange, and keeps what is its own.

Everything of a run that has not ended stands in ``state/runs/RUN`` of the home; what is left of it then moves to
``runs/RUN``, without the secrets. A process that is killed leaves the folder, and the next one goes on in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import IntegrityError, PolicyDenied, SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy, load_policy
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints
from fedcredit.runtime.escrow import FileEscrow, NoEscrow
from fedcredit.runtime.house.consent import check_bounds, consented, note_proposal, run_policy
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.records import catalog_digest, house_register, house_table, own_spec
from fedcredit.runtime.hybrid.networks import is_hybrid, roles_of
from fedcredit.runtime.kept import KeptFiles
from fedcredit.runtime.leftovers import earlier_messages
from fedcredit.runtime.model_run import ModelRun, Outcome, Seat
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.progress import Progress, StageClock
from fedcredit.runtime.ready_loops import loops_for, loops_if_kept
from fedcredit.runtime.refusals import note_refusal, public_error
from fedcredit.runtime.runs.proposal import Approval, Checked, Decision, check_proposal
from fedcredit.runtime.session.entry import Entry, in_session
from fedcredit.runtime.session.files import (
    EPHEMERAL,
    PROGRESS_FILE,
    RECORDS_FILE,
    Brought,
    check_brought,
    decoy_key,
    ended_well,
    kept_secret,
    own_approval,
    pin,
)
from fedcredit.runtime.session.session import Part, Timing, play
from fedcredit.runtime.summary import Effort, leakage, summarise
from fedcredit.spec.model import RunSpec
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId
from fedcredit.wire.message import encode_struct

__all__ = ["Node", "consider", "run_session", "shared_figures"]

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
        approval = own_approval(home, checked, lambda: _brought(home, checked))
        return encode_struct(Decision(party=home.party, state="approved", approval=approval))
    except Exception as error:  # noqa: BLE001 - whatever it is, the coordinator has to hear a name for it
        note_refusal(home, "proposal refused", raw, error)
        code, text, _ = public_error(error)
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
        FedCreditError: the order is not one for this house; see `fedcredit.runtime.session.entry.in_session`.
    """

    def play(entry: Entry) -> bytes:
        loops_if_kept(loops_for(entry.checked.spec.run.model))  # a run may come before the node is ready
        with ExitStack() as stack:
            node = _node(entry, stack)
            node.play(ended=entry.ended)
            return node.close(finish)

    return in_session(home, raw, play)


def _node(entry: Entry, stack: ExitStack) -> Node:
    if is_hybrid(roles_of(entry.checked.spec)):
        from fedcredit.runtime.hybrid.house import HybridNode  # noqa: PLC0415 -- loads what other runs do not need

        return HybridNode(entry, stack)
    return Node(entry, stack)


def _brought(home: Home, checked: Checked) -> Brought:
    """What this house brings to a run; its records themselves are read where the approval says their digest."""
    return Brought(
        records=house_table(home, checked).digest if checked.spec.simulation else "",
        register=house_register(home, checked.spec, checked.data).digest,
        catalog=catalog_digest(home, checked.data),
    )


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
        with suppress(OSError):  # no run ends because nobody can watch it
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self.path)


class Node:
    """One node in one run.

    Args:
        entry: The session.
        stack: Closes what is opened.

    Raises:
        PolicyDenied: the house does not let the run happen.
    """

    def __init__(self, entry: Entry, stack: ExitStack) -> None:
        home, checked, files = entry.home, entry.checked, entry.files
        self._home, self._checked, self._files, self._party = home, checked, files, home.party
        policy = load_policy(home.policy)
        check_bounds(home, checked, policy, datetime.now(UTC))
        if not consented(home, checked, policy):
            raise PolicyDenied("consent.pending", f"the people of {home.party} have not approved this run")
        self._spec = own_spec(home, checked)
        if self._spec.run.model not in MODEL_RUNS:
            raise SpecError("proposal.model", f"model {self._spec.run.model} is learned in visits, not in a session")
        self._model: ModelRun = MODEL_RUNS[self._spec.run.model]
        policy = run_policy(policy, self._spec, checked.proposal.spec_digest)
        self._ledger = stack.enter_context(Ledger(home.state / "ledger.sqlite", policy.cap_rules()))
        self._clock = StageClock(
            home.party, {**self._model.seconds, "end": "score"}, _Progress(files.folder / PROGRESS_FILE)
        )
        self._secret = kept_secret(files, _SEED_FILE)
        self._records = {party: entry.approvals[party].records for party in self._spec.parties}
        self._approved = entry.approvals[home.party].register
        self._part = self._as_part(policy, entry.approvals)

    @cached_property
    def _table(self) -> HolderTable:
        """The records that the run was approved for, and was begun with; read by the role, so that its error is told.

        Raises:
            DataError: they are wrong.
            IntegrityError: they have changed.
        """
        table = house_table(self._home, self._checked)
        approved = self._records[self._party] if self._spec.simulation else table.digest
        if table.digest != approved or pin(self._files.folder, RECORDS_FILE, table.digest) != table.digest:
            raise IntegrityError("run.records", f"{self._party}: its records have changed since it approved this run")
        return table

    @cached_property
    def _register(self) -> Sequence[str] | None:
        """The register that the run was approved with, None where this house brings none.

        Raises:
            DataError: it cannot be read.
            IntegrityError: it, or the catalogue, has changed.
        """
        found = house_register(self._home, self._checked.spec, self._checked.data)
        catalog = catalog_digest(self._home, self._checked.data)
        check_brought(self._party, self._files.folder, Brought(register=found.digest, catalog=catalog))
        if found.digest != self._approved:
            raise IntegrityError(
                "run.register", f"{self._party}: its register is not the one it approved this run with"
            )
        return found.ids or None

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
            register = self._register  # before the records: what was derived by another catalogue is other records
            keep = KeptSecrets(RunSecret(self._secret), self._draws(), escrow, self._kept())
            key = decoy_key(self._home.state)
            holding = Holding(self._spec, self._checked.run_digest, self._table, keep, register, key)
            checkpoints = FileCheckpoints(self._files.checkpoints / self._party)
            seat = Seat(channel, holding, checkpoints, self._clock.report)
            return await self._model.role(self._spec, seat, self._held_out)
        finally:
            escrow.close()

    def _kept(self) -> KeptFiles:
        """What the cipher library drew in earlier attempts."""
        return KeptFiles(self._files.kept, f"{self._checked.run_digest}/{self._party}")

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
        leads = self._party == self._spec.label_holder.name
        return ended_well(self._part, shared_figures(self._files.folder, self._spec, leads=leads), finish)


def shared_figures(folder: Path, spec: RunSpec, *, leads: bool) -> bytes:
    """What a party publishes of its result: in a trial a label holder's figures, else nothing.

    Args:
        folder: Its run directory.
        spec: The run.
        leads: Whether it holds labels.
    """
    if not leads or not spec.simulation:
        return b""
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    names = ("rows_train", "rows_test", "auc_test", "ks_test", "auc_label_holder_alone", "model_digest", "seconds")
    return json.dumps({name: summary[name] for name in names if name in summary}).encode()
