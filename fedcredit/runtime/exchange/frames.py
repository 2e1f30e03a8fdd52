"""What travels between a party and the exchange: small headers, and sealed bytes that nobody here can read.

A frame is two bytes with the length of its header, the header (canonical MessagePack of one struct below), and the raw
bytes. Heads, chunks and receipts are forwarded byte for byte, so that a chunk for several recipients is read once and
written to each of them by reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

from fedcredit.crypto.sealed_body import SEALED_CHUNK, TAG_BYTES
from fedcredit.errors import BoundError, PeerError
from fedcredit.runtime.exchange.limits import FRAME_BYTES, HEAD_BYTES, HEADER_BYTES
from fedcredit.wire.message import Count, Finite, Name, Text

__all__ = [
    "METHOD",
    "SERVICE",
    "VERSION",
    "Alive",
    "Beat",
    "Chunk",
    "FromExchange",
    "FromParty",
    "Head",
    "Join",
    "Leave",
    "Receipt",
    "Refused",
    "Seen",
    "Target",
    "Welcome",
    "encode_frame",
    "read_from_exchange",
    "read_from_party",
]

SERVICE, METHOD = "fedcredit.Exchange", "Link"

VERSION = 1
"""Of these frames; another one is refused at the join."""

_TOKEN = 16
_LENGTH = 2
_MOST_TARGETS = 64

Token = Annotated[bytes, msgspec.Meta(min_length=_TOKEN, max_length=_TOKEN)]
_NameOrNone = Annotated[str, msgspec.Meta(max_length=128)]
_Credit = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="f"):
    """Base of all headers."""


class Join(_Frame, frozen=True, kw_only=True, tag="join"):
    """First frame of a party: the run it wants, who it is (the certificate decides) and its process life."""

    run: Name
    party: Name
    attempt: Count
    version: Count


class Welcome(_Frame, frozen=True, kw_only=True, tag="welcome"):
    """First frame of the exchange; the party repeats the token to show that it is alive and reads."""

    token: Token
    window: Count


class Alive(_Frame, frozen=True, kw_only=True, tag="alive"):
    """Answer to a welcome, which completes the join."""

    token: Token


class Beat(_Frame, frozen=True, kw_only=True, tag="beat"):
    """A heartbeat; a party's says whom it waits for ("" is nobody)."""

    waiting_for: _NameOrNone = ""


class Leave(_Frame, frozen=True, kw_only=True, tag="leave"):
    """A party's last frame."""


class Head(_Frame, frozen=True, kw_only=True, tag="head"):
    """A sealed head for one recipient; where the body is small its only chunk follows in the raw bytes.

    ``sync`` names the recipient's request to which this belongs; ``sealed`` is the length of the head.
    """

    sender: Name
    recipient: Name
    sync: Count
    attempt: Count
    sequence: Count
    sealed: Annotated[int, msgspec.Meta(ge=TAG_BYTES, le=HEAD_BYTES)]


class Target(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One recipient of a chunk, its request, and the number of the head that announced the body."""

    recipient: Name
    sync: Count
    sequence: Count


class Chunk(_Frame, frozen=True, kw_only=True, tag="chunk"):
    """One sealed chunk of a body, for one or several recipients."""

    sender: Name
    attempt: Count
    index: Count
    to: Annotated[list[Target], msgspec.Meta(min_length=1, max_length=_MOST_TARGETS)]


class Receipt(_Frame, frozen=True, kw_only=True, tag="receipt"):
    """What the ``sender`` of the receipt has from its ``recipient``; acknowledgement, credit and place to go on in one.

    A new ``sync`` asks the peer to (re)start sending at head ``next``: its head if ``index`` is 0, else chunk
    ``index - 1``. Everything below ``next`` is acknowledged. ``credit`` is the number of raw bytes the peer may have
    sent since the sync (below 0 where payloads from before it still take all room).
    """

    sender: Name
    recipient: Name
    sync: Count
    attempt: Count
    next: Count
    index: Count
    credit: _Credit


class Seen(_Frame, frozen=True, kw_only=True, tag="seen"):
    """Presence of a party; ``stream`` tells its connections apart, 0 before the first."""

    party: Name
    connected: bool
    stream: Count
    seconds: Finite
    waiting_for: _NameOrNone


class Refused(_Frame, frozen=True, kw_only=True, tag="refused"):
    """Last frame of the exchange: why it ends the stream."""

    code: Name
    text: Text


FromParty = Join | Alive | Beat | Leave | Head | Chunk | Receipt
FromExchange = Welcome | Beat | Head | Chunk | Receipt | Seen | Refused
F = TypeVar("F", bound=_Frame)

_ENCODER = msgspec.msgpack.Encoder()
_FROM_PARTY: msgspec.msgpack.Decoder[FromParty] = msgspec.msgpack.Decoder(FromParty)
_FROM_EXCHANGE: msgspec.msgpack.Decoder[FromExchange] = msgspec.msgpack.Decoder(FromExchange)


def encode_frame(header: _Frame, *raw: bytes) -> bytes:
    """A frame's bytes.

    Raises:
        BoundError: the header is too long.
    """
    head = _ENCODER.encode(header)
    if len(head) > HEADER_BYTES:
        raise BoundError("exchange.header", f"a header of {len(head)} bytes, at most {HEADER_BYTES} are allowed")
    return b"".join((len(head).to_bytes(_LENGTH, "big"), head, *raw))


def read_from_party(data: bytes) -> tuple[FromParty, int]:
    """A frame of a party: its header, and where its raw bytes begin.

    Raises:
        PeerError: malformed, not canonical, too large, or raw bytes where none belong.
    """
    return _read(data, _FROM_PARTY.decode)


def read_from_exchange(data: bytes) -> tuple[FromExchange, int]:
    """A frame of the exchange; as `read_from_party`."""
    return _read(data, _FROM_EXCHANGE.decode)


def _read(data: bytes, decode: Callable[[bytes], F]) -> tuple[F, int]:
    if len(data) > FRAME_BYTES:
        raise PeerError("exchange.oversize", f"a frame of {len(data)} bytes, at most {FRAME_BYTES} are taken")
    start = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    head = data[_LENGTH:start]
    if len(head) != start - _LENGTH or len(head) > HEADER_BYTES:
        raise PeerError("exchange.malformed", "a frame is shorter than it says, or its header too long")
    try:
        frame = decode(head)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise PeerError("exchange.malformed", "a frame with a malformed header", type(error).__name__) from None
    if _ENCODER.encode(frame) != head:
        raise PeerError("exchange.malformed", "a frame whose header is not canonical")
    _check_raw(frame, len(data) - start)
    return frame, start


def _check_raw(frame: _Frame, raw: int) -> None:
    """Raw bytes belong to heads and chunks alone, and within bounds."""
    if isinstance(frame, Head):
        fits = raw == frame.sealed or TAG_BYTES < raw - frame.sealed <= SEALED_CHUNK
    elif isinstance(frame, Chunk):
        fits = TAG_BYTES < raw <= SEALED_CHUNK
    else:
        fits = raw == 0
    if not fits:
        raise PeerError("exchange.malformed", f"a frame with {raw} raw bytes where they do not belong")
