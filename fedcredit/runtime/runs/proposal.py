"""What the coordinator and the nodes say to each other about a run before and after it: signed, and bound to the run.

A proposal is the coordinator's; an approval is a party's word on exactly that proposal, with the ephemeral key it will
be sealed to; a session order hands everybody's approvals to everybody, so that each node sees for itself that all have
approved the same. The coordinator can withhold these, not change them.

Source: RFC 8032 (Ed25519) through the ``cryptography`` package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

import fedcredit
from fedcredit.errors import FedCreditError, PeerError, SpecError
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind, Roster
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.spec.travel import read_travelling
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.message import Count, Digest, Name, Part, Text, decode_struct, encode_struct

__all__ = [
    "Approval",
    "Checked",
    "Decision",
    "Finished",
    "Proposal",
    "SessionOrder",
    "approvals_of",
    "check_approval",
    "check_finished",
    "check_proposal",
    "make_proposal",
    "read_approval",
    "read_decision",
    "read_order",
    "signed_approval",
    "signed_finished",
]

_PROPOSAL, _APPROVAL, _FINISHED = (f"fedcredit/{what}/v1\x00".encode() for what in ("proposal", "approval", "finished"))
_LIFE = timedelta(days=30)
_SKEW = timedelta(minutes=5)
_MOST = 1 << 21  # bytes of any of these

_Run = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
_Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
_Body = Annotated[bytes, msgspec.Meta(max_length=_MOST)]
_Maybe = Annotated[str, msgspec.Meta(max_length=128)]
_Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z", max_length=64)]
_Before = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z", max_length=32)]
_Missing = Annotated[list[Name], msgspec.Meta(max_length=64)]


class Proposal(Part, frozen=True, kw_only=True):
    """A run that the coordinator proposes.

    Attributes:
        run: Its name.
        spec: The specification as it travels (`fedcredit.spec.travel`).
        spec_digest: Its digest.
        roster_digest: The consortium as the coordinator knows it.
        version: Version of fedcredit that all parties have to run.
        made: When, RFC 3339 in UTC.
        expires: No session of it starts from then on.
        continues: The run it goes on from without some parties, or the empty text.
        missing: Those parties.
    """

    run: _Run
    spec: _Body
    spec_digest: Digest
    roster_digest: Digest
    version: Name
    made: Name
    expires: Name
    continues: _Before
    missing: _Missing


class _Signed(Part, frozen=True, kw_only=True):
    content: _Body
    signature: _Signature


class Approval(Part, frozen=True, kw_only=True):
    """A party's word that it takes part in a run.

    Attributes:
        party: Whose.
        run: The run.
        proposal_sha256: Exactly this proposal.
        ephemeral: X25519 public key for this run, to which others seal.
        records: Digest of its records in a trial, where draws are repeatable; empty in production.
        register: Digest of its register of public ids, if the run names one and the house has it; else empty.
    """

    party: Name
    run: _Run
    proposal_sha256: Digest
    ephemeral: _Key
    records: _Maybe
    register: _Hex = ""


class Decision(Part, frozen=True, kw_only=True):
    """A node's answer to a proposal.

    Attributes:
        party: Whose.
        state: ``approved``, ``pending`` or ``denied``.
        code: Of a denial.
        text: Of a denial, or what a pending decision waits for.
        approval: Signed `Approval`; empty unless approved.
    """

    party: Name
    state: Annotated[str, msgspec.Meta(pattern="^(approved|pending|denied)$", max_length=8)]
    code: _Maybe = ""
    text: Text = ""
    approval: _Body = b""


class SessionOrder(Part, frozen=True, kw_only=True):
    """Everything a party needs to start: the proposal, and every party's approval.

    Attributes:
        proposal: Signed `Proposal`.
        approvals: Signed `Approval` of every party and of the coordinator.
        ended: A party has reported that it finished, which it does only when all had what they need.
    """

    proposal: _Body
    approvals: list[_Body]
    ended: bool = False


class Finished(Part, frozen=True, kw_only=True):
    """How a party's session ended.

    Attributes:
        party: Whose.
        run: The run.
        ok: Whether it has its part of the model.
        code: Of the error.
        text: Of the error, public.
        culprit: The party it is due to, where that is known.
        audit_head: Head of its closed audit log; publishing it binds the log.
        attempts: How often it started.
        messages: Messages it let out.
        bytes_sent: Their bytes.
        shared: JSON that its policy lets it publish; empty otherwise.
    """

    party: Name
    run: _Run
    ok: bool
    code: _Maybe = ""
    text: Text = ""
    culprit: _Maybe = ""
    audit_head: _Maybe = ""
    attempts: Count = 1
    messages: Count = 0
    bytes_sent: Count = 0
    shared: _Body = b""


@dataclass(frozen=True)
class Checked:
    """A proposal whose signature, time, versions and digests hold.

    Args:
        proposal: As proposed.
        raw: Its signed bytes.
        spec: The run.
        data: Name of the records that each party uses.
    """

    proposal: Proposal
    raw: bytes
    spec: RunSpec
    data: PartyId

    @property
    def run(self) -> RunId:
        """Name of the run."""
        return RunId(self.proposal.run)

    @property
    def sha256(self) -> str:
        """Digest of the signed bytes, which approvals name."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def roster(self) -> dict[PartyId, Role]:
        """Role of every party, the coordinator last."""
        return {**{party.name: party.role for party in self.spec.party}, COORDINATOR: Role.COORDINATOR}

    @property
    def run_digest(self) -> str:
        """Digest of spec and run, which binds reference strings and keys."""
        return hashlib.sha256(f"{self.proposal.spec_digest}/{self.proposal.run}".encode()).hexdigest()


P = TypeVar("P", bound=Part)


def make_proposal(
    home: Home,
    run: RunId,
    spec: str,
    *,
    continues: str = "",
    missing: Sequence[str] = (),
    made: datetime | None = None,
) -> bytes:
    """The coordinator's signed proposal; the same for the same arguments.

    Args:
        home: The coordinator's.
        run: Name of the run.
        spec: The spec as it travels.
        continues: The run it goes on from.
        missing: The parties it goes on without.
        made: When; None = now.
    """
    read, _ = read_travelling(spec)
    now = made or datetime.now(UTC)
    proposal = Proposal(
        run=run,
        spec=spec.encode(),
        spec_digest=spec_digest(read),
        roster_digest=home.roster.digest,
        version=fedcredit.__version__,
        made=now.isoformat(timespec="seconds"),
        expires=(now + _LIFE).isoformat(timespec="seconds"),
        continues=continues,
        missing=list(missing),
    )
    return _sign(home, _PROPOSAL, proposal)


def check_proposal(raw: bytes, roster: Roster, now: datetime) -> Checked:
    """Reads a proposal.

    Raises:
        PeerError: malformed, not the coordinator's, or with times or a past that no proposal has.
        SpecError: of a newer or other roster, another version of fedcredit, past its time, or no spec of its members.
    """
    proposal = _opened(Proposal, raw, _PROPOSAL, COORDINATOR, roster)
    if proposal.version != fedcredit.__version__:
        raise SpecError(
            "proposal.version",
            f"the coordinator runs fedcredit {proposal.version}, this house {fedcredit.__version__}; run the same",
        )
    # This house may have pinned before the coordinator, or since: all signatures are checked against its own roster.
    if proposal.roster_digest not in {roster.digest, *roster.history}:
        raise SpecError(
            "proposal.roster", f"the coordinator has another roster than this house's version {roster.version}; pin it"
        )
    _check_times(proposal, now)
    if bool(proposal.continues) is not bool(proposal.missing):
        text = "a run that goes on names the run before it and who is missing, any other neither"
        raise PeerError("proposal.continues", text, culprit=COORDINATOR)
    spec, data = read_travelling(proposal.spec)
    if spec_digest(spec) != proposal.spec_digest:
        raise SpecError("proposal.digest", "the specification is not the one whose digest was proposed")
    for party in spec.parties:
        if roster.member(party).kind is not MemberKind.NODE:
            raise SpecError("proposal.party", f"{party} is no node of consortium {roster.consortium}")
    return Checked(proposal, raw, spec, PartyId(data))


def signed_approval(home: Home, checked: Checked, ephemeral: bytes, records: str, register: str = "") -> bytes:
    """This party's approval."""
    approval = Approval(
        party=home.party,
        run=checked.run,
        proposal_sha256=checked.sha256,
        ephemeral=ephemeral,
        records=records,
        register=register,
    )
    return _sign(home, _APPROVAL, approval)


def read_approval(raw: bytes, party: PartyId, roster: Roster) -> Approval:
    """A party's approval of any run; raises PeerError where it is malformed or not that party's."""
    return _opened(Approval, raw, _APPROVAL, party, roster)


def check_approval(raw: bytes, party: PartyId, checked: Checked, roster: Roster) -> Approval:
    """Reads a party's approval.

    Raises:
        PeerError: malformed, not that party's, or of another proposal.
    """
    approval = read_approval(raw, party, roster)
    if (approval.party, approval.run, approval.proposal_sha256) != (party, checked.run, checked.sha256):
        raise PeerError("approval.other", f"{party}: its approval is of another run or proposal", culprit=party)
    return approval


def read_decision(raw: bytes, party: PartyId, checked: Checked, roster: Roster) -> Decision:
    """Reads a node's decision; an approval in it is checked too.

    Raises:
        PeerError: malformed, of another party, or with an approval that does not verify.
    """
    decision = _decoded(Decision, raw, f"a decision of {party}")
    if decision.party != party:
        raise PeerError("decision.other", f"{party}: a decision in the name of another party", culprit=party)
    if decision.state == "approved":
        check_approval(decision.approval, party, checked, roster)
    return decision


def signed_finished(home: Home, finished: Finished) -> bytes:
    """This party's end of a session."""
    return _sign(home, _FINISHED, finished)


def check_finished(raw: bytes, party: PartyId, run: RunId, roster: Roster) -> Finished:
    """Reads how a party's session ended.

    Raises:
        PeerError: malformed, not that party's, or of another run.
    """
    finished = _opened(Finished, raw, _FINISHED, party, roster)
    if (finished.party, finished.run) != (party, run):
        raise PeerError("finished.other", f"{party}: the end of another run", culprit=party)
    return finished


def approvals_of(order: SessionOrder, checked: Checked, roster: Roster) -> Mapping[PartyId, Approval]:
    """Everybody's approval of the same proposal.

    Raises:
        PeerError: one is missing, not that party's, or of another proposal.
    """
    parties = list(checked.roster)
    if len(order.approvals) != len(parties):
        raise PeerError("order.approvals", f"{len(order.approvals)} approvals for {len(parties)} parties")
    return {
        party: check_approval(raw, party, checked, roster) for party, raw in zip(parties, order.approvals, strict=True)
    }


def read_order(raw: bytes) -> SessionOrder:
    """A session order, whose parts are not checked yet; raises PeerError where it is malformed."""
    return _decoded(SessionOrder, raw, "a session order")


def _check_times(proposal: Proposal, now: datetime) -> None:
    try:
        made, expires = (datetime.fromisoformat(one) for one in (proposal.made, proposal.expires))
    except ValueError:
        raise PeerError("proposal.time", "the proposal's times are no times", culprit=COORDINATOR) from None
    if made.tzinfo is None or expires.tzinfo is None:
        raise PeerError("proposal.time", "the proposal's times have no zone", culprit=COORDINATOR)
    if expires > made + _LIFE:
        text = f"the proposal lasts longer than {_LIFE.days} days"
        raise PeerError("proposal.time", text, culprit=COORDINATOR)
    if made > now + _SKEW:
        ahead = int((made - now).total_seconds())
        raise SpecError("proposal.clock", f"the proposal was made {ahead} s from now: set the clocks of both houses")
    if now >= expires:
        raise SpecError("proposal.expired", f"the proposal expired at {proposal.expires}; submit the run again")


def _sign(home: Home, domain: bytes, content: Part) -> bytes:
    data = encode_struct(content)
    return encode_struct(_Signed(content=data, signature=home.identity.sign(domain + data)))


def _opened(kind: type[P], raw: bytes, domain: bytes, party: PartyId, roster: Roster) -> P:
    """Content that a member has signed."""
    what = f"{kind.__name__.lower()} of {party}"
    signed = _decoded(_Signed, raw, what)
    try:
        roster.member(party).identity.check(signed.signature, domain + signed.content, party)
        return _decoded(kind, signed.content, what)
    except FedCreditError as error:
        raise PeerError(error.code, f"{what}: {error.public}", culprit=party) from None


def _decoded(kind: type[P], raw: bytes, what: str) -> P:
    if len(raw) > 2 * _MOST:
        raise PeerError("wire.oversize", f"{what}: {len(raw)} bytes are more than any such message has")
    return decode_struct(kind, raw, what)
