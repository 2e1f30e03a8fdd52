"""The messages of averaging besides those of its secure sums."""

from __future__ import annotations

from fedcredit.types import Role
from fedcredit.wire.message import Count, Digest, Message
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = ["SCHEMA", "ModelReady"]


class ModelReady(Message, frozen=True, kw_only=True, tag="fedavg.ready"):
    """A bank has its model and waits for nothing more."""

    model: Digest
    rounds: Count


SCHEMA = ProtocolSchema(
    name="fedavg",
    messages=(
        Declared(
            message=ModelReady,
            senders=frozenset({Role.LABEL_HOLDER}),
            receivers=frozenset({Role.COORDINATOR}),
            max_bytes=1 << 10,
        ),
    ),
)
"""All messages of this protocol besides those of its sums."""
