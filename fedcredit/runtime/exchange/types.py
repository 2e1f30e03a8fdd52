"""What one party's end of a run at the exchange is told, and what it hands out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fedcredit.crypto.sealed import LinkKeys
from fedcredit.runtime.exchange.limits import LinkLimits
from fedcredit.types import PartyId, RunId

__all__ = ["Delivery", "LinkSettings", "Parcel", "PeerRestarted", "Presence", "TlsPem"]


class TlsPem(Protocol):
    """What a party shows at the TLS handshake; all PEM."""

    @property
    def ca(self) -> bytes:
        """The consortium's authority."""
        ...

    @property
    def certificate(self) -> bytes:
        """The party's certificate."""
        ...

    @property
    def key(self) -> bytes:
        """Its private key."""
        ...


@dataclass(frozen=True)
class LinkSettings:
    """What a link needs.

    Args:
        address: "host:port" of the exchange.
        server_name: DNS name in the exchange's certificate.
        tls: The party's PEM files.
        run: The run to join.
        party: The party itself.
        peers: The other parties of the run.
        keys: Keys towards these peers.
        attempt: Counts the process lives of this run; a link speaks with peers of the same attempt only.
        limits: Sizes and times.
        connect_timeout_s: Longest wait for one connection with its join.
        reconnect_s: Seconds without a connection after which the link gives up.
    """

    address: str
    server_name: str
    tls: TlsPem = field(repr=False)
    run: RunId
    party: PartyId
    peers: tuple[PartyId, ...]
    keys: LinkKeys
    attempt: int
    limits: LinkLimits = field(default_factory=LinkLimits)
    connect_timeout_s: float = 10.0
    reconnect_s: float = 120.0


@dataclass(frozen=True)
class Parcel:
    """One recipient of a payload.

    Args:
        recipient: Who gets it.
        head: Bytes for this recipient alone, at most 60 KiB.
    """

    recipient: PartyId
    head: bytes


@dataclass(frozen=True)
class Delivery:
    """One payload that came in, authenticated.

    Args:
        sender: Who sealed it.
        head: Bytes for this party alone.
        body: Bytes that others may have got too.
    """

    sender: PartyId
    head: bytes
    body: bytes


@dataclass(frozen=True)
class Presence:
    """What the exchange last told of a party (not authenticated end to end: for people and time-outs).

    Args:
        connected: It has a stream in this run.
        seconds: Since ``connected`` last changed.
        waiting_for: Whom it says it waits for.
    """

    connected: bool
    seconds: float
    waiting_for: PartyId | None


class PeerRestarted(Exception):  # noqa: N818 - no error of the run: the caller starts its own next attempt
    """A peer speaks, authenticated, under a higher attempt than this link: this party has to begin again as well.

    Args:
        party: The peer.
        attempt: Its attempt, the least one this party's next link can have.
    """

    def __init__(self, party: PartyId, attempt: int) -> None:
        super().__init__(f"{party} began again as attempt {attempt}")
        self.party = party
        self.attempt = attempt
