"""Messages and their one and only byte form.

A message is a frozen msgspec struct. Its bytes are MessagePack with the fields in the order of the class, so that one
message has one encoding: whatever decodes but would encode otherwise is refused.

Source: MessagePack specification (msgpack.org); canonical-form rule after RFC 8949 section 4.2.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from fedcredit.errors import BoundError, PeerError

__all__ = [
    "Count",
    "Digest",
    "Finite",
    "Message",
    "Name",
    "Part",
    "Text",
    "decode",
    "decode_struct",
    "encode",
    "encode_struct",
    "kind_of",
]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A whole number that every language reads exactly."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
"""A SHA-256 in hexadecimal. The explicit length closes the trailing newline that ``$`` lets through."""

Finite = Annotated[float, msgspec.Meta(ge=-1.7e308, le=1.7e308)]
"""A number that is neither infinite nor not-a-number (comparisons with NaN fail)."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
"""A name of a party, feature, kind or stage."""

Text = Annotated[str, msgspec.Meta(max_length=1024)]
"""Public text for people."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of everything one party says to another.

    A subclass is written ``class SumRequest(Message, frozen=True, kw_only=True, tag="group_sum.request")``. Fields may
    be bytes, str, int, float, bool, lists (or variadic tuples) of those, and nested :class:`Part` structs; sizes are
    capped through ``msgspec.Meta``. ``ProtocolSchema`` refuses anything else.
    """


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of structs nested inside a message."""


S = TypeVar("S", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)


def kind_of(message: type[Message] | Message) -> str:
    """The name under which a message travels, for example ``"group_sum.request"``."""
    cls = message if isinstance(message, type) else type(message)
    return str(cls.__struct_config__.tag)


def encode_struct(value: msgspec.Struct) -> bytes:
    """Canonical bytes of a struct whose fields keep their declared bounds.

    Raises:
        BoundError: a field is outside the bounds its own class declares; nothing of it has left.
    """
    try:
        data = msgspec.msgpack.encode(value)
        msgspec.msgpack.decode(data, type=type(value))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        name = type(value).__name__
        raise BoundError("wire.invalid-message", f"message {name} breaks its own field bounds", str(error)) from None
    return data


def decode_struct(cls: type[S], data: bytes, what: str) -> S:
    """Reads a struct from untrusted bytes.

    Args:
        cls: The struct expected.
        data: Bytes from a peer.
        what: Name of the thing for the error text.

    Raises:
        PeerError: malformed, of another type, out of bounds, or not the canonical encoding.
    """
    try:
        value = msgspec.msgpack.decode(data, type=cls)
        canonical = msgspec.msgpack.encode(value)
    # ValueError covers UnicodeDecodeError and msgspec's own errors; the others come of deep nesting and huge lengths.
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise PeerError("wire.malformed", f"malformed bytes where {what} was expected", type(error).__name__) from None
    if canonical != data:
        raise PeerError("wire.not-canonical", f"bytes of {what} are not in canonical form")
    return value


def encode(message: Message) -> bytes:
    """Canonical bytes of a message.

    Raises:
        BoundError: a field is outside the bounds its own class declares.
    """
    return encode_struct(message)


def decode(cls: type[M], data: bytes) -> M:
    """Reads one message of a known type.

    Raises:
        PeerError: anything malformed, of another kind, out of bounds or not canonical.
    """
    return decode_struct(cls, data, kind_of(cls))
