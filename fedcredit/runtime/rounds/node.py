"""A bank's visits in its own house: each a process that opens the house, answers one question, and ends.

The order comes with every visit and is checked with every visit. What lies between two visits stands in the folder of
the run: the audit log, the state of the role, and which records, secret and attempt it was begun with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.table import HolderTable
from fedcredit.errors import IntegrityError, PeerError, PolicyDenied, SpecError, TransportError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import House, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import load_policy
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime import houses
from fedcredit.runtime.checkpoints import FileCheckpoints, replace_file
from fedcredit.runtime.escrow import FileEscrow
from fedcredit.runtime.house.consent import check_bounds, consented, run_policy
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.records import house_table, own_spec
from fedcredit.runtime.leftovers import earlier_messages, mend_lines
from fedcredit.runtime.rounds.bank import RoundBank, RoundHouse, VisitQuestion
from fedcredit.runtime.rounds.model import BankSeat
from fedcredit.runtime.rounds.models import ROUND_MODELS
from fedcredit.runtime.rounds.summary import averaging_leakage, bank_summary
from fedcredit.runtime.rounds.tables import bank_tables
from fedcredit.runtime.rounds.words import NodeVisit, NodeVisited
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.runs.proposal import Checked
from fedcredit.runtime.session.entry import Entry, in_session
from fedcredit.runtime.session.files import EPHEMERAL, PROGRESS_FILE, RECORDS_FILE, ended_well, kept_secret, pin
from fedcredit.runtime.session.session import ATTEMPT_FILE, STOP_FILE, Part, Timing
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId
from fedcredit.wire.message import decode_struct, encode_struct
from fedcredit.wire.schema import merge

__all__ = ["BANK_STATE", "context_of", "run_visit"]

BANK_STATE = "bank"
"""Below the checkpoints of a run: what a bank keeps between two visits."""

_SEED_FILE = "run"


def run_visit(home: Home, raw: bytes, finish: Callable[[Path, PartyId], None] | None = None) -> bytes:
    """Answers one visit; again for the same bytes.

    Args:
        home: The node's.
        raw: Bytes of a `NodeVisit`.
        finish: Adds what else can be made of the party's files when the run has ended.

    Returns:
        Bytes of a `NodeVisited`.

    Raises:
        FedCreditError: the order is not one for this house; see `fedcredit.runtime.session.entry.in_session`.
    """
    visit = decode_struct(NodeVisit, raw, "a visit")
    answers: list[bytes] = []

    def play(entry: Entry) -> bytes:
        if visit.stopped:
            raise PeerError("run.without", visit.stopped)
        with ExitStack() as stack:
            node = _Visited(entry, stack)
            if visit.question:
                answers.append(node.answer(visit.question))
                return b""
            return node.close(finish)

    told = in_session(home, visit.order, play)
    return encode_struct(NodeVisited(answer=answers[0]) if answers else NodeVisited(finished=told))


def context_of(home: Home, checked: Checked) -> RunContext:
    """The run as all gates of it see it.

    Raises:
        SpecError: its model is not learned in rounds.
    """
    model = ROUND_MODELS.get(checked.spec.run.model)
    if model is None:
        raise SpecError("proposal.model", f"model {checked.spec.run.model} is not learned in rounds")
    keys = {party: home.roster.member(party).identity for party in checked.roster}
    return RunContext(checked.run, checked.proposal.spec_digest, checked.roster, keys, merge(*model.schemas))


class _Visited:
    """One node during one visit."""

    def __init__(self, entry: Entry, stack: ExitStack) -> None:
        home, checked, files = entry.home, entry.checked, entry.files
        self._home, self._checked, self._files, self._stack = home, checked, files, stack
        policy = load_policy(home.policy)
        check_bounds(home, checked, policy, datetime.now(UTC))
        if not consented(home, checked, policy):
            raise PolicyDenied("consent.pending", f"the people of {home.party} have not approved this run")
        if (files.folder / STOP_FILE).exists():
            text = f"{home.party} left the run by its own decision"
            raise TransportError("run.left", text, culprit=home.party)
        self._context = context_of(home, checked)
        self._model = ROUND_MODELS[checked.spec.run.model]
        self._spec = own_spec(home, checked)
        policy = run_policy(policy, self._spec, checked.proposal.spec_digest)
        self._ledger = stack.enter_context(Ledger(home.state / "ledger.sqlite", policy.cap_rules()))
        self._privacy = stack.enter_context(PrivacyLedger(home.state / "privacy.sqlite", policy.privacy_limit()))
        self._secret = kept_secret(files, _SEED_FILE)
        self._records = {party: entry.approvals[party].records for party in self._spec.parties}
        self._part = Part(
            home=home,
            checked=checked,
            approvals=entry.approvals,
            ephemeral=kept_secret(files, EPHEMERAL),
            schemas=self._model.schemas,
            policy=policy,
            ledger=self._ledger,
            files=files,
            timing=Timing(),
        )
        if not (files.folder / ATTEMPT_FILE).exists():
            replace_file(files.folder / ATTEMPT_FILE, b"1")

    def answer(self, question: bytes) -> bytes:
        """The visit itself."""
        part, home = self._part, self._home
        mend_lines(part.audit_file)
        audit = AuditLog(part.audit_file, home.party, self._checked.run, lambda: datetime.now(UTC))
        try:
            house = House(home.party, home.identity, part.policy, self._ledger, audit, lambda: datetime.now(UTC))
            answer = self._rounds(house).visit(question)
        finally:
            audit.suspend()
        self._tell(decode_struct(VisitQuestion, question, "a visit").number)
        return answer

    def close(self, finish: Callable[[Path, PartyId], None] | None) -> bytes:
        """The end of the run in this house; returns the signed `Finished`."""
        part, files = self._part, self._files
        memory = AuditLog(None, part.party, self._checked.run, lambda: datetime.now(UTC))
        house = House(part.party, self._home.identity, part.policy, self._ledger, memory, lambda: datetime.now(UTC))
        bank = self._rounds(house).bank
        if not bank.finished:
            raise PeerError("rounds.unfinished", f"the run is said to have ended, but {part.party} has no model yet")
        self._write(bank)
        self._ledger.close_run(self._checked.run)
        return ended_well(part, _shared(files, self._spec.simulation), finish)

    def _rounds(self, house: House) -> RoundHouse:
        seat = self._seat
        checkpoints = FileCheckpoints(self._files.checkpoints / BANK_STATE)
        return RoundHouse(self._context, house, checkpoints, lambda state: self._model.bank(seat, state))

    @cached_property
    def _seat(self) -> BankSeat:
        home, checked = self._home, self._checked
        escrow = FileEscrow(self._files.folder / "escrow" / f"{home.party}.jsonl")
        self._stack.callback(escrow.close)
        own = self._table()
        return BankSeat(
            spec=self._spec,
            party=home.party,
            run=checked.run,
            tables=bank_tables(self._spec, home.party, home.folder, own),
            keep=KeptSecrets(RunSecret(self._secret), self._draws(own), escrow),
            key=home.identity,
            keys=self._context.keys,
            privacy=self._privacy,
        )

    def _table(self) -> HolderTable:
        """The records that the run was approved for, and was begun with.

        Raises:
            DataError: they are wrong.
            IntegrityError: they have changed.
        """
        table, party = house_table(self._home, self._checked), self._home.party
        approved = self._records[party] if self._spec.simulation else table.digest
        if table.digest != approved or pin(self._files.folder, RECORDS_FILE, table.digest) != table.digest:
            raise IntegrityError("run.records", f"{party}: its records have changed since it approved this run")
        return table

    def _draws(self, own: HolderTable) -> Entropy:
        """Source of noise: in a trial that of the simulation, which anyone can repeat."""
        if self._spec.simulation:
            return houses.repeatable_draws(houses.Origin(self._spec, self._records), self._home.party)
        return RunSecret(self._secret).entropy("node/draws", self._checked.run_digest.encode(), own.digest.encode())

    def _write(self, bank: RoundBank) -> None:
        files, party, checked = self._files, self._home.party, self._checked
        own = self._model.own(files, self._seat, bank)
        sent = [one for one in earlier_messages(files.audit) if one.sender == party]
        files.text("spec.toml", spec_toml(checked.spec))
        files.transcript(sent)
        reports = {party: self._ledger.report(checked.run)}
        files.json("leakage.json", averaging_leakage(self._model.schemas, reports, sent))
        summary = bank_summary(checked.spec, checked.run, self._model.schemas, sent)
        proposal = checked.proposal
        deployed = {"party": party, "continues": proposal.continues or None, "missing": list(proposal.missing)}
        files.json("summary.json", {**summary, **own, "bank": party, "deployed": deployed})

    def _tell(self, visits: int) -> None:
        """How far the run is, for the house's people."""
        content = {"stage": "rounds", "done": visits, "total": None, "time": datetime.now(UTC).isoformat()}
        with suppress(OSError):  # no run ends because nobody can watch it
            replace_file(self._files.folder / PROGRESS_FILE, json.dumps(content).encode())


def _shared(files: RunFiles, simulation: bool) -> bytes:  # noqa: FBT001 -- of the spec
    """What this party publishes of its result: in a trial its figures, else nothing."""
    if not simulation:
        return b""
    summary = json.loads((files.folder / "summary.json").read_text("utf-8"))
    names = ("rows_train", "rows_test", "auc_test", "ks_test", "model_digest")
    return json.dumps({name: summary[name] for name in names if name in summary}).encode()
