"""The one message every run has: a party's word that it stops, and why."""

from __future__ import annotations

from fedcredit.types import Role
from fedcredit.wire.message import Message, Name, Text
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["NOTICE_SCHEMA", "ErrorNotice"]

_EVERYONE = frozenset(Role)


class ErrorNotice(Message, frozen=True, kw_only=True, tag="run.error"):
    """Code and public text of the error that ends the run at its sender; never a data value."""

    code: Name
    text: Text


NOTICE_SCHEMA = ProtocolSchema(
    name="run",
    # 4 bytes a character of the text at most, and the code and framing.
    messages=(Declared(message=ErrorNotice, senders=_EVERYONE, receivers=_EVERYONE, max_bytes=8192),),
)
"""Schema of the notice; part of every run's schema."""
