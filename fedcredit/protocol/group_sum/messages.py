"""Messages of the encrypted group sum."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Part
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "LARGEST_ANSWER",
    "LARGEST_REQUEST",
    "SCHEMA",
    "Answer",
    "AskerSetup",
    "Digest",
    "GroupingCommitment",
    "Hints",
    "NonceCommitment",
    "NonceReveal",
    "Purpose",
    "Request",
    "SealedVector",
]

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Purpose = Annotated[str, Meta(max_length=200)]

_SMALL = 1 << 10
_SETUP = 1 << 24  # a BFV public key at degree 8192 is below 1 MB
_HINTS = 1 << 30  # 138 kB an output: 7,700 outputs
_MAX_VECTORS = 1 << 12

LARGEST_ANSWER = 1 << 30
"""Bytes of the largest answer. For each vector it takes 17 bytes an output; with BFV 8 kB."""

LARGEST_REQUEST = 1 << 30
"""Bytes of the largest request. A vector takes 135 bits a row, 17 MB at a million rows; with BFV four times that."""


class NonceCommitment(Message, frozen=True, kw_only=True, tag="group_sum.nonce_commitment"):
    """Hash of a party's share of the reference string, sent before any share is revealed."""

    commitment: Digest


class NonceReveal(Message, frozen=True, kw_only=True, tag="group_sum.nonce_reveal"):
    """A party's share of the reference string: uniform bytes."""

    nonce: Digest


class GroupingCommitment(Message, frozen=True, kw_only=True, tag="group_sum.grouping_commitment"):
    """Salted commitment to a grouping, before the first vector."""

    purpose: Purpose
    commitment: Digest


class AskerSetup(Message, frozen=True, kw_only=True, tag="group_sum.setup"):
    """Public bytes an answerer needs: a public key (bfv), or nothing (hinted)."""

    purpose: Purpose
    setup: bytes


class Hints(Message, frozen=True, kw_only=True, tag="group_sum.hints"):
    """Once a grouping: one blinded ring element an output."""

    purpose: Purpose
    outputs: Annotated[int, Meta(ge=1, le=1 << 20)]
    hints: bytes


class SealedVector(Part, frozen=True, kw_only=True):
    """One encrypted vector, and the commitment to it and to the seed of its encryption."""

    commitment: Digest
    body: bytes


class Request(Message, frozen=True, kw_only=True, tag="group_sum.request"):
    """Vectors of one batch; ``index`` is the number of the first in the conversation."""

    purpose: Purpose
    index: Annotated[int, Meta(ge=0, le=1 << 20)]
    vectors: Annotated[list[SealedVector], Meta(min_length=1, max_length=_MAX_VECTORS)]


class Answer(Message, frozen=True, kw_only=True, tag="group_sum.answer"):
    """The encrypted sums of each vector of one request, or their masked form."""

    purpose: Purpose
    index: Annotated[int, Meta(ge=0, le=1 << 20)]
    bodies: Annotated[list[bytes], Meta(min_length=1, max_length=_MAX_VECTORS)]


_HOLDERS = frozenset({Role.LABEL_HOLDER, Role.FEATURE_HOLDER})
_ANSWERERS = frozenset({Role.FEATURE_HOLDER})  # nobody asks the label holder for sums over its columns

SCHEMA = ProtocolSchema(
    name="group_sum",
    messages=(
        Declared(message=NonceCommitment, senders=_HOLDERS, receivers=_HOLDERS, max_bytes=_SMALL),
        Declared(message=NonceReveal, senders=_HOLDERS, receivers=_HOLDERS, max_bytes=_SMALL),
        Declared(message=GroupingCommitment, senders=_ANSWERERS, receivers=_HOLDERS, max_bytes=_SMALL),
        Declared(message=AskerSetup, senders=_HOLDERS, receivers=_ANSWERERS, max_bytes=_SETUP),
        Declared(message=Hints, senders=_ANSWERERS, receivers=_HOLDERS, max_bytes=_HINTS),
        Declared(message=Request, senders=_HOLDERS, receivers=_ANSWERERS, max_bytes=LARGEST_REQUEST),
        Declared(message=Answer, senders=_ANSWERERS, receivers=_HOLDERS, max_bytes=LARGEST_ANSWER, spends=True),
    ),
)
"""All messages of this protocol; an answer spends equations of the answerer's ledger, a masked one spends none yet."""
