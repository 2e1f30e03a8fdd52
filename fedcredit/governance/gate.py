"""The one door of a house: everything that leaves passes :meth:`Gate.release`, everything that enters `admit`.

On the way out: all rules are checked, then the disclosure ledger pays, then the audit log notes, then the signed bytes
are handed over. A refusal is noted too. On the way in: envelope, schema, stage, body, then the audit log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn, Protocol, TypeVar

from fedcredit.errors import FedCreditError, PeerError, PolicyDenied
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.types import PartyId, Role, RunId
from fedcredit.wire.disclosure import Declaration, Spend
from fedcredit.wire.envelope import (
    OVERHEAD,
    Envelope,
    Expected,
    Route,
    SigningKey,
    VerifyKey,
    body_digest,
    open_envelope,
    seal,
)
from fedcredit.wire.message import Message, decode_struct, encode, kind_of
from fedcredit.wire.notice import NOTICE_SCHEMA, ErrorNotice
from fedcredit.wire.schema import RunSchema, merge

__all__ = ["Gate", "House", "Place", "Released", "RunContext", "Sent"]

M = TypeVar("M", bound=Message)

_NAME_LENGTH = 128  # as wire.message.Name has it


@dataclass(frozen=True)
class RunContext:
    """What all parties of a run agree on.

    Args:
        run: Its name.
        spec_digest: Digest of its spec.
        roster: Role of every party.
        keys: Public signing key of every party.
        schema: Messages of its protocols; the error notice is added.
    """

    run: RunId
    spec_digest: str
    roster: Mapping[PartyId, Role]
    keys: Mapping[PartyId, VerifyKey]
    schema: RunSchema


@dataclass(frozen=True)
class House:
    """What belongs to one party alone.

    Args:
        party: Its name.
        key: Its secret signing key.
        policy: What it lets out.
        ledger: What it has disclosed.
        audit: What it did.
        clock: Tells the time, with its zone.
    """

    party: PartyId
    key: SigningKey = field(repr=False)
    policy: Policy
    ledger: Ledger
    audit: AuditLog
    clock: Callable[[], datetime]


class Sent(Protocol):
    """A message that has left, as far as limits count it."""

    @property
    def kind(self) -> str:
        """Kind of the message."""
        ...

    @property
    def bytes(self) -> int:
        """Size of its envelope."""
        ...


@dataclass(frozen=True)
class Released:
    """A message on its way out.

    Args:
        data: Signed envelope bytes.
        kind: Kind of the message.
        sequence: Its number on the link to the recipient.
        body_sha256: Digest of its body.
        body_bytes: Size of its body, which stands before the signature in the envelope.
    """

    data: bytes
    kind: str
    sequence: int
    body_sha256: str
    body_bytes: int


@dataclass(frozen=True)
class Place:
    """Where a gate stands between two processes that share its links, one after the other.

    Args:
        sent: Number of the next envelope to each party.
        received: Number of the next envelope from each party.
        kinds: Messages let out, by kind.
        bytes: Envelope bytes let out.
    """

    sent: Mapping[PartyId, int] = field(default_factory=dict)
    received: Mapping[PartyId, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0


class Gate:
    """One party's door in one run; keeps its counters and sequences.

    Args:
        context: The run.
        house: The party.
        earlier: Messages that processes before this one let out in this run: the policy's limits count them too.
        place: Where the process before this one left the links; None = at their beginning.
    """

    def __init__(
        self, context: RunContext, house: House, earlier: Sequence[Sent] = (), place: Place | None = None
    ) -> None:
        at = place or Place()
        self._context, self._house = context, house
        self._schema = merge(*context.schema.protocols, NOTICE_SCHEMA)
        self._index = self._schema.index()
        self._sent: Counter[PartyId] = Counter(at.sent)
        self._received: Counter[PartyId] = Counter(at.received)
        self._kinds: Counter[str] = Counter(at.kinds) + Counter(one.kind for one in earlier)
        self._bytes = at.bytes + sum(one.bytes for one in earlier)
        self._earlier = len(earlier)
        self._evidence: dict[PartyId, str] = {}

    @property
    def place(self) -> Place:
        """Where it stands, for a process that goes on with its links."""
        return Place(dict(self._sent), dict(self._received), dict(self._kinds), self._bytes)

    @property
    def bytes_sent(self) -> int:
        """Envelope bytes released so far, by earlier processes too."""
        return self._bytes

    @property
    def messages_sent(self) -> int:
        """Messages released so far, by earlier processes too."""
        return self._earlier + self._sent.total()

    def release(self, to: PartyId, message: Message, stage: str, spend: Spend | None = None) -> Released:
        """Lets one message out, or refuses and notes the refusal.

        Raises:
            PolicyDenied: schema, roster or policy forbids it.
            DisclosureRefused: the ledger does.
            BoundError: the message breaks its own field bounds.
        """
        kind = kind_of(message)
        try:
            body = encode(message)
            _check_stage_name(stage)
            protocol = self._check_out(to, kind, len(body), spend)
            if spend is not None:
                body = self._house.ledger.spend(self._context.run, spend.learner or to, spend, body)
            route = Route(self._context.run, protocol, stage, self._house.party, to, self._sent[to])
            data = seal(self._house.key, route, kind, body)
        except FedCreditError as error:
            self._refuse(error, {"kind": kind, "recipient": to, "stage": stage})
        digest = body_digest(body)
        entry: dict[str, object] = {
            "kind": kind,
            "recipient": to,
            "stage": stage,
            "sequence": route.sequence,
            "bytes": len(data),
            "body_sha256": digest,
        }
        if spend is not None:
            entry["spend"] = [[c.kind, c.feature, c.amount] for c in spend.costs]
            entry["request"] = spend.request
            entry["learner"] = spend.learner or to
        self._house.audit.append("sent", entry)
        self._sent[to] += 1
        self._kinds[kind] += 1
        self._bytes += len(data)
        return Released(data, kind, route.sequence, digest, len(body))

    def _check_out(self, to: PartyId, kind: str, size: int, spend: Spend | None) -> str:
        """Every rule on the way out; returns the protocol's name."""
        house, policy = self._house, self._house.policy
        protocol, declared = self._schema.by_kind(kind)
        if to == house.party or to not in self._context.roster:
            raise PolicyDenied("gate.recipient", f"{to} is no other party of this run's roster")
        declared.allows(self._role(house.party), self._role(to))
        declared.fits(size)
        if declared.spends and spend is None:
            raise PolicyDenied("gate.spend", f"message {kind} discloses and states no cost")
        if spend is not None and not declared.spends:
            raise PolicyDenied("gate.spend", f"message {kind} states a cost but is not declared to disclose")
        policy.check_run(self._context.spec_digest, house.clock())
        policy.check_recipient(to)
        if spend is not None and spend.learner is not None:
            self._check_learner(spend.learner)
        if protocol.name != NOTICE_SCHEMA.name:  # a house must be able to say that its own limits stopped it
            policy.check_kind(protocol.name, kind)
            self._check_counters(kind, size + OVERHEAD)
        return protocol.name

    def _check_learner(self, learner: PartyId) -> None:
        """A cost may be booked to another party of the run than the relay it goes through, never to nobody."""
        if learner == self._house.party or learner not in self._context.roster:
            raise PolicyDenied("gate.learner", f"{learner} is no other party of this run's roster")
        self._house.policy.check_recipient(learner)

    def _check_counters(self, kind: str, size: int) -> None:
        """Sizes and counts of the policy; sizes with the most an envelope adds."""
        policy = self._house.policy
        for name, found, allowed in (
            ("max_message_bytes", size, policy.max_message_bytes),
            ("max_run_bytes", self._bytes + size, policy.max_run_bytes),
            ("max_run_messages", self.messages_sent + 1, policy.max_run_messages),
            (
                f"kind_messages of {kind}",
                self._kinds[kind] + 1,
                policy.kind_messages.get(kind, policy.max_run_messages),
            ),
        ):
            if found > allowed:
                raise PolicyDenied("policy.limit", f"message {kind} would make {found} where {name} allows {allowed}")

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """Takes a declaration to the ledger, and notes it or its refusal.

        Raises:
            DisclosureRefused: a cap would be passed.
            PolicyDenied: the counterparty is none, or the run is not approved.
        """
        fields: dict[str, object] = {
            "counterparty": counterparty,
            "purpose": declaration.purpose,
            "data_version": declaration.data_version,
            "basis": [declaration.basis.n_eff, declaration.basis.n_bad, declaration.basis.noise_rows],
            "costs": [[c.kind, c.feature, c.amount] for c in declaration.costs],
            "evidence": declaration.evidence,
        }
        try:
            self._house.policy.check_run(self._context.spec_digest, self._house.clock())
            self._house.policy.check_recipient(counterparty)
            self._house.ledger.declare(self._context.run, counterparty, declaration)
        except FedCreditError as error:
            self._refuse(error, fields)
        self._house.audit.append("declared", fields)

    def evidence_of(self, sender: PartyId) -> str:
        """SHA-256 of the last envelope admitted from a sender, or the empty text."""
        return self._evidence.get(sender, "")

    def admit(self, data: bytes, sender: PartyId, stage: str, kind: type[M]) -> M:
        """Lets one message in, if it is exactly the one expected.

        Args:
            data: Envelope bytes off the wire.
            sender: Whose link they came in on.
            stage: Stage this party is in.
            kind: Type this party waits for.

        Raises:
            PeerError: oversize, malformed, forged, out of sequence, of another run, stage or kind.
        """
        try:
            envelope = open_envelope(data, self._expected(sender))
            self._check_in(envelope, sender, kind)
            self._check_stage(envelope, sender, stage)
            message = decode_struct(kind, envelope.body, f"{kind_of(kind)} of {sender}")
        except PeerError as error:
            self._reject(error, sender, stage, len(data))
        self._house.audit.append(
            "received",
            {
                "kind": envelope.kind,
                "sender": sender,
                "stage": stage,
                "sequence": envelope.sequence,
                "bytes": len(data),
                "body_sha256": body_digest(envelope.body),
            },
        )
        self._received[sender] += 1
        self._evidence[sender] = body_digest(data)
        return message

    def admit_notice(self, data: bytes, sender: PartyId) -> ErrorNotice:
        """Lets in a peer's word that it stops; it may overtake messages that nobody will read any more.

        Raises:
            PeerError: not a genuine notice of the sender.
        """
        try:
            envelope = open_envelope(data, self._expected(sender), overtakes=True)
            self._check_in(envelope, sender, ErrorNotice)
            notice = decode_struct(ErrorNotice, envelope.body, f"an error notice of {sender}")
        except PeerError as error:
            self._reject(error, sender, "", len(data))
        self._house.audit.append("stopped", {"sender": sender, "code": notice.code, "bytes": len(data)})
        return notice

    def _expected(self, sender: PartyId) -> Expected:
        context = self._context
        return Expected(
            run=context.run,
            sender=sender,
            recipient=self._house.party,
            sequence=self._received[sender],
            max_body=self._schema.largest,
            keys=context.keys,
        )

    def _check_in(self, envelope: Envelope, sender: PartyId, kind: type[Message]) -> None:
        """Holds an incoming envelope against protocol, roles, declared size and the kind waited for."""
        found = self._index.get(envelope.kind)
        if found is None or found[0].name != envelope.protocol:
            raise PeerError(
                "wire.undeclared", f"{sender} sent a message that protocol {envelope.protocol!r} of this run lacks"
            )
        declared, size = found[1], len(envelope.body)
        try:
            declared.allows(self._role(sender), self._role(self._house.party))
        except PolicyDenied as error:
            raise PeerError("wire.roles", f"{sender}: {error.public}") from None
        if size > declared.max_bytes:
            text = f"{sender} sent {envelope.kind} of {size} bytes, at most {declared.max_bytes} are declared"
            raise PeerError("wire.oversize", text)
        if declared.message is not kind:
            raise PeerError("wire.kind", f"{sender} sent {envelope.kind} where {kind_of(kind)} was expected")

    @staticmethod
    def _check_stage(envelope: Envelope, sender: PartyId, stage: str) -> None:
        """Both ends of a message are in the same stage."""
        if envelope.stage != stage:
            text = f"{sender} sent {envelope.kind} in stage {envelope.stage!r}, this party is in {stage!r}"
            raise PeerError("wire.stage", text)

    def _role(self, party: PartyId) -> Role:
        return self._context.roster[party]

    def _refuse(self, error: FedCreditError, fields: Mapping[str, object]) -> NoReturn:
        self._house.audit.append("refused", {**fields, "code": error.code})
        raise error

    def _reject(self, error: PeerError, sender: PartyId, stage: str, size: int) -> NoReturn:
        self._house.audit.append("rejected", {"sender": sender, "stage": stage, "bytes": size, "code": error.code})
        raise error


def _check_stage_name(stage: str) -> None:
    """Refuses a stage that no envelope could carry, before the ledger pays for it."""
    if not 1 <= len(stage) <= _NAME_LENGTH:
        raise PolicyDenied(
            "gate.stage", f"a stage's name has {len(stage)} characters, 1 to {_NAME_LENGTH} are possible"
        )
