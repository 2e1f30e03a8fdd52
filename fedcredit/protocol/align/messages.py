"""Messages of alignment in mode ``plain``: ids in the open, for simulations only."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["SCHEMA", "CommonIndex", "IdList"]

_Id = Annotated[str, Meta(max_length=200)]
_IDS = 1 << 28  # ten million ids of 18 characters


class IdList(Message, frozen=True, kw_only=True, tag="align.ids"):
    """All ids of a feature holder, in the open."""

    ids: list[_Id]


class CommonIndex(Message, frozen=True, kw_only=True, tag="align.index"):
    """The ids that every party has, in the common order, and which of them are held out."""

    ids: list[_Id]
    test_rows: bytes


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})

SCHEMA = ProtocolSchema(
    name="align",
    messages=(
        Declared(message=IdList, senders=_P, receivers=_L, max_bytes=_IDS),
        Declared(message=CommonIndex, senders=_L, receivers=_P, max_bytes=_IDS),
    ),
)
"""All messages of this protocol."""
