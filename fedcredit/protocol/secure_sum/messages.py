"""Messages of secure sums; all of them pass through the coordinator."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Name, Part
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "SCHEMA",
    "Begin",
    "Contribution",
    "Fresh",
    "Join",
    "Joined",
    "Opening",
    "Prepared",
    "Shares",
    "Survivors",
    "Turn",
    "Welcome",
]

_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Signature = Annotated[bytes, Meta(max_length=64)]
_Number = Annotated[int, Meta(ge=1, le=2**31)]
_Length = Annotated[int, Meta(ge=1, le=2**24)]
_Bound = Annotated[int, Meta(ge=1, le=2**62)]
_Box = Annotated[bytes, Meta(max_length=256)]


class Join(Message, frozen=True, kw_only=True, tag="secure_sum.join"):
    """A bank's key for boxes in this run, signed under its key of the roster."""

    key: _Bytes32
    signature: _Signature


class Joined(Part, frozen=True, kw_only=True):
    """A bank that has joined, with what it sent."""

    party: Name
    key: _Bytes32
    signature: _Signature


class Welcome(Message, frozen=True, kw_only=True, tag="secure_sum.welcome"):
    """The banks that have joined, sorted by name."""

    members: list[Joined]


class Prepared(Message, frozen=True, kw_only=True, tag="secure_sum.prepared"):
    """A bank's fresh keys for the first sum, and a box for each other bank."""

    pair_key: _Bytes32
    seed_digest: _Bytes32
    boxes: list[_Box]


class Fresh(Part, frozen=True, kw_only=True):
    """Fresh keys of one bank for the sum to come, and its box for the reader; empty for the reader's own."""

    party: Name
    pair_key: _Bytes32
    seed_digest: _Bytes32
    box: _Box


class Begin(Message, frozen=True, kw_only=True, tag="secure_sum.begin"):
    """Members of the first sum, sorted by name."""

    fresh: list[Fresh]


class Turn(Message, frozen=True, kw_only=True, tag="secure_sum.turn"):
    """Whether another sum follows, where banks and coordinator talk over a channel."""

    more: bool


class Contribution(Message, frozen=True, kw_only=True, tag="secure_sum.contribution"):
    """A bank's vector, masked and, by profile, encrypted; with its fresh keys and boxes for the sum after."""

    number: _Number
    context: _Bytes32
    length: _Length
    bound: _Bound
    body: bytes
    pair_key: _Bytes32
    seed_digest: _Bytes32
    boxes: list[_Box]


class Survivors(Message, frozen=True, kw_only=True, tag="secure_sum.survivors"):
    """Whose vectors have arrived, sorted by name, with what they sent for the sum after."""

    number: _Number
    fresh: list[Fresh]


class Shares(Message, frozen=True, kw_only=True, tag="secure_sum.shares"):
    """For each member of the sum one share: of its seed if its vector has arrived, of its pair secret if not."""

    number: _Number
    survivors: _Bytes32
    shares: bytes


class Opening(Message, frozen=True, kw_only=True, tag="secure_sum.opening"):
    """The total, what opens it, and who is in the sum after."""

    number: _Number
    survivors: list[Name]
    secrets: bytes
    total: bytes
    members: list[Name]


_L, _C = frozenset({Role.LABEL_HOLDER}), frozenset({Role.COORDINATOR})
_NAMES = 1 << 20  # 1024 banks
_BODY = 1 << 29  # 2^24 values: 126 MB a limb up, 252 MB down

SCHEMA = ProtocolSchema(
    name="secure_sum",
    messages=(
        Declared(message=Join, senders=_L, receivers=_C, max_bytes=1 << 10),
        Declared(message=Welcome, senders=_C, receivers=_L, max_bytes=_NAMES),
        Declared(message=Prepared, senders=_L, receivers=_C, max_bytes=_NAMES),
        Declared(message=Begin, senders=_C, receivers=_L, max_bytes=_NAMES),
        Declared(message=Turn, senders=_L, receivers=_C, max_bytes=1 << 10),
        Declared(message=Contribution, senders=_L, receivers=_C, max_bytes=_BODY),
        Declared(message=Survivors, senders=_C, receivers=_L, max_bytes=_NAMES),
        Declared(message=Shares, senders=_L, receivers=_C, max_bytes=_NAMES),
        Declared(message=Opening, senders=_C, receivers=_L, max_bytes=_BODY),
    ),
)
"""All messages of secure sums."""
