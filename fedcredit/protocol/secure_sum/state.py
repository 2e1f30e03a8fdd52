"""What a member of secure sums keeps between two messages; for its own house only: it holds secrets."""

from __future__ import annotations

from typing import Literal

import msgspec

from fedcredit.wire.message import Part

__all__ = ["MemberState", "Peer"]


class Peer(Part, frozen=True, kw_only=True):
    """What a member knows of another (or itself) for one sum.

    Attributes:
        party: Who.
        pair_key: Its public key of pair masks.
        seed_digest: What its seed must match.
        pair_share: This member's share of its pair secret, 33 bytes.
        seed_share: This member's share of its seed, 33 bytes.
    """

    party: str
    pair_key: bytes
    seed_digest: bytes
    pair_share: bytes
    seed_share: bytes


class MemberState(Part, frozen=True, kw_only=True):
    """A member between two messages.

    Attributes:
        phase: What it has done last.
        number: Of the sum under way or to come, from 1.
        keys: Keys for boxes, by bank, of all that joined.
        links: What was agreed with the owner of each of those keys.
        origin: Digest of the roster under which the secrets of this sum were shared.
        base: Holders of shares of this sum, sorted: places 1, 2, ….
        roster: Members of this sum, sorted.
        peers: What is known of each for this sum.
        own: Own part of the sum after, once it was made.
        later: What is known of each survivor for the sum after.
        context: Digest of this sum, once there is a vector.
        length: Of the vector.
        bound: Of its values.
        survivors: Whose vectors are in the total, once that is known.
        group: Key of the group, under profile masked+he.
        history: Digest of the totals it has opened; empty before the first.
        sent: Last message that went out, encoded.
    """

    phase: Literal["new", "joined", "prepared", "ready", "contributed", "unmasked"] = "new"
    number: int = 1
    keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    links: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    origin: bytes = b""
    base: list[str] = msgspec.field(default_factory=list)
    roster: list[str] = msgspec.field(default_factory=list)
    peers: list[Peer] = msgspec.field(default_factory=list)
    own: Peer | None = None
    later: list[Peer] = msgspec.field(default_factory=list)
    context: bytes = b""
    length: int = 0
    bound: int = 0
    survivors: list[str] = msgspec.field(default_factory=list)
    group: bytes = b""
    history: bytes = b""
    sent: bytes = b""
