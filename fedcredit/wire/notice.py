"""The messages every run has, whatever its protocols: that a party is there, is done, or stops and why."""

from __future__ import annotations

from fedcredit.types import Role
from fedcredit.wire.message import Message, Name, Text
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["NOTICE_SCHEMA", "Begin", "Done", "ErrorNotice"]

_EVERYONE = frozenset(Role)


class ErrorNotice(Message, frozen=True, kw_only=True, tag="run.error"):
    """Code and public text of the error that ends the run at its sender; never a data value."""

    code: Name
    text: Text


class Begin(Message, frozen=True, kw_only=True, tag="run.begin"):
    """A party is there and starts an attempt at the run; between houses only.

    Attributes:
        complete: It has everything it needs of this run already, and takes part for the others' sake.
    """

    complete: bool


class Done(Message, frozen=True, kw_only=True, tag="run.done"):
    """A party has written down everything it needs; between houses only. Nobody leaves before all are done."""


NOTICE_SCHEMA = ProtocolSchema(
    name="run",
    messages=(
        # 4 bytes a character of the text at most, and the code and framing.
        Declared(message=ErrorNotice, senders=_EVERYONE, receivers=_EVERYONE, max_bytes=8192),
        Declared(message=Begin, senders=_EVERYONE, receivers=_EVERYONE, max_bytes=64),
        Declared(message=Done, senders=_EVERYONE, receivers=_EVERYONE, max_bytes=64),
    ),
)
"""Schema of these messages; part of every run's schema."""
