"""Messages of alignment: ids in the open (``plain``), a register by its digest (``registry``), blinded (``blind``).

Lists of ``blind`` travel in pieces of at most 2 MB, so that memory does not follow the message.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Count, Message, Name
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "PLACES_A_PIECE",
    "REPLIES_A_PIECE",
    "SCHEMA",
    "TOKENS_A_PIECE",
    "BlindedList",
    "CommonIndex",
    "CommonRows",
    "IdList",
    "ListSize",
    "Places",
    "Register",
    "Replies",
    "ReplyKey",
    "Tokens",
]

_Id = Annotated[str, Meta(max_length=200)]
_IDS = 1 << 28  # ten million ids of 18 characters

TOKENS_A_PIECE, REPLIES_A_PIECE, PLACES_A_PIECE = 1 << 16, 1 << 15, 1 << 19
"""Entries of a piece: 32 bytes a token, 64 a reply, 4 a place."""

_PIECE = 1 << 21
_BODY = _PIECE + (1 << 10)  # and the names around it
_Piece = Annotated[bytes, Meta(min_length=1, max_length=_PIECE)]
_Point = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Rows = Annotated[int, Meta(ge=1, le=1 << 26)]


class IdList(Message, frozen=True, kw_only=True, tag="align.ids"):
    """All ids of a feature holder, in the open."""

    ids: list[_Id]


class CommonIndex(Message, frozen=True, kw_only=True, tag="align.index"):
    """The ids that every party has, in the common order, and which of them are held out."""

    ids: list[_Id]
    test_rows: bytes


class Register(Message, frozen=True, kw_only=True, tag="align.register"):
    """The public register that everyone indexes."""

    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    rows: _Rows


class ListSize(Message, frozen=True, kw_only=True, tag="align.size"):
    """How long the sender's own list is."""

    entries: _Rows


class Tokens(Message, frozen=True, kw_only=True, tag="align.tokens"):
    """A piece of a list of blinded ids."""

    owner: Name
    first: Count
    tokens: _Piece


class BlindedList(Message, frozen=True, kw_only=True, tag="align.blinded"):
    """Says that another party's list follows, blinded and shuffled here: this is the answer its owner asked for."""

    owner: Name
    entries: _Rows


class ReplyKey(Message, frozen=True, kw_only=True, tag="align.reply_key"):
    """The label holder's public point and the seed of the pairs that the coordinator makes under it."""

    public: _Point
    seed: _Point


class Replies(Message, frozen=True, kw_only=True, tag="align.replies"):
    """A piece of the bits that say which entries of the label holder's list are common to all, readable by it alone."""

    first: Count
    pairs: _Piece


class Places(Message, frozen=True, kw_only=True, tag="align.places"):
    """A piece of the places of a list's entries in the common order: 4 bytes each, little-endian; -1 = none."""

    owner: Name
    first: Count
    places: _Piece


class CommonRows(Message, frozen=True, kw_only=True, tag="align.rows"):
    """How many rows the common order has, how many of them count, and without decoys which are held out."""

    rows: _Rows
    counted: _Rows
    test_rows: Annotated[bytes, Meta(max_length=1 << 23)]


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})
_C = frozenset({Role.COORDINATOR})
_OWNERS, _ALL = _L | _P, _L | _P | _C

SCHEMA = ProtocolSchema(
    name="align",
    messages=(
        Declared(message=IdList, senders=_P, receivers=_L, max_bytes=_IDS),
        Declared(message=CommonIndex, senders=_L, receivers=_P, max_bytes=_IDS),
        Declared(message=Register, senders=_L, receivers=_P, max_bytes=1 << 10),
        Declared(message=ListSize, senders=_OWNERS, receivers=_ALL, max_bytes=1 << 8),
        Declared(message=Tokens, senders=_OWNERS, receivers=_ALL, max_bytes=_BODY),
        Declared(message=BlindedList, senders=_OWNERS, receivers=_ALL, max_bytes=1 << 10, spends=True),
        Declared(message=ReplyKey, senders=_L, receivers=_C, max_bytes=1 << 8),
        Declared(message=Replies, senders=_C | _P, receivers=_OWNERS, max_bytes=_BODY),
        Declared(message=Places, senders=_ALL, receivers=_ALL, max_bytes=_BODY),
        Declared(message=CommonRows, senders=_L, receivers=_P, max_bytes=(1 << 23) + (1 << 10)),
    ),
)
"""All messages of this protocol."""
