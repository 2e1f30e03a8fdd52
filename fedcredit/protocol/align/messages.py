"""Messages of alignment: ids in the open (``plain``), a register by its digest (``registry``)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["SCHEMA", "CommonIndex", "IdList", "Register"]

_Id = Annotated[str, Meta(max_length=200)]
_IDS = 1 << 28  # ten million ids of 18 characters


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
    rows: Annotated[int, Meta(ge=1, le=1 << 26)]


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})

SCHEMA = ProtocolSchema(
    name="align",
    messages=(
        Declared(message=IdList, senders=_P, receivers=_L, max_bytes=_IDS),
        Declared(message=CommonIndex, senders=_L, receivers=_P, max_bytes=_IDS),
        Declared(message=Register, senders=_L, receivers=_P, max_bytes=1 << 10),
    ),
)
"""All messages of this protocol."""
