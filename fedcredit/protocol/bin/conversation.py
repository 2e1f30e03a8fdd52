"""The group sums that binning asks for; both sides derive them from the spec."""

from __future__ import annotations

from fedcredit.crypto.packing import Field
from fedcredit.protocol.group_sum.session import Conversation, Session

__all__ = ["BIN_FIELDS", "bin_conversation"]

BIN_FIELDS = 3
"""Bad, to train on, held out: three equations about every feature."""


def bin_conversation(session: Session, rows: int) -> Conversation:
    """One batch of three indicators over the prebins of every feature."""
    return Conversation(session, "bin", ((Field(1),) * BIN_FIELDS,), rows)
