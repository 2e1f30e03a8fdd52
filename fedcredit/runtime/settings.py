"""What one simulated run is made of, and what is recorded of each message."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from fedcredit.errors import SpecError
from fedcredit.governance.canonical import canonical_json
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.runtime.metering import Meter
from fedcredit.types import PartyId, Role, RunId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["LocalSettings", "Tamper", "TranscriptEntry", "transcript_digest"]


class _Entropy(Protocol):
    """A source of uniform bytes for keys."""

    def take(self, size: int, /) -> bytes:
        """The next ``size`` bytes."""
        ...


Tamper = Callable[[PartyId, PartyId, str, bytes], Sequence[bytes]]
"""A test's hand on the wire: (sender, recipient, kind, envelope) → the envelopes that are delivered instead."""


@dataclass(frozen=True)
class TranscriptEntry:
    """One message as it crossed.

    Args:
        sender: Its author.
        recipient: Its reader.
        kind: Kind of the message.
        bytes: Size of the envelope.
        stage: Stage of the sender.
        sequence: Number on the link.
        body_sha256: Digest of the body.
    """

    sender: PartyId
    recipient: PartyId
    kind: str
    bytes: int
    stage: str
    sequence: int
    body_sha256: str


def transcript_digest(entries: Iterable[TranscriptEntry]) -> str:
    """SHA-256 over all messages, link by link, so that the order between links does not matter."""
    ordered = sorted(entries, key=lambda one: (one.sender, one.recipient, one.sequence))
    return hashlib.sha256(canonical_json([asdict(one) for one in ordered]).encode()).hexdigest()


@dataclass(frozen=True)
class LocalSettings:
    """One simulated run.

    Args:
        run: Its name.
        spec_digest: Digest of its spec.
        roster: Role of every party, the coordinator included where it takes part.
        schemas: Protocols of the run.
        entropy: Source of the signing keys of parties that bring none.
        signing_keys: Signing key of each party; those left out are drawn from ``entropy``.
        policies: Policy of each party; those left out get `simulation_policy`.
        ledgers: Ledger of each party; those left out get one that is forgotten with the run.
        audit_dir: Where the audit logs go; None keeps them in memory. Unfinished logs of the run are continued.
        headroom_dir: Where answers of the ledgers are kept for a run that is resumed; None keeps them in memory.
        timeout_s: Longest idle wait for a message, in seconds.
        bandwidth_mbps: Modelled line of each party, each way; 0 = not modelled.
        latency_ms: Modelled latency between two parties; 0 = none.
        clock: Tells the time for policy and audit.
        progress: Called with (party, stage) at each change of stage.
        busy: Meter of all roles of the process, where several networks share it; None = this network's own.
        tamper: For tests only.
    """

    run: RunId
    spec_digest: str
    roster: Mapping[PartyId, Role]
    schemas: Sequence[ProtocolSchema]
    entropy: _Entropy = field(repr=False)
    signing_keys: Mapping[PartyId, SigningKey] = field(default_factory=dict, repr=False)
    policies: Mapping[PartyId, Policy] = field(default_factory=dict)
    ledgers: Mapping[PartyId, Ledger] = field(default_factory=dict)
    audit_dir: Path | None = None
    headroom_dir: Path | None = None
    timeout_s: float = 120.0
    bandwidth_mbps: float = 0.0
    latency_ms: float = 0.0
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    progress: Callable[[PartyId, str], None] | None = None
    busy: Meter | None = None
    tamper: Tamper | None = None

    def __post_init__(self) -> None:
        """Refuses settings no run could have.

        Raises:
            SpecError: fewer than two parties, a name that is no plain name, or a time-out that is not positive.
        """
        if len(self.roster) < 2:
            raise SpecError("network.roster", f"a run needs two parties or more, the roster has {len(self.roster)}")
        for party in self.roster:
            if not party or any(not (char.isalnum() or char in "_-") for char in party):
                raise SpecError("network.party", f"party name {party!r} may hold letters, digits, '_' and '-' only")
        if not self.timeout_s > 0:
            raise SpecError("network.timeout", f"[network] timeout_s is {self.timeout_s}, more than 0 is needed")
