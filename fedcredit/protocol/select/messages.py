"""Messages of the choice of rows under encryption."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Name
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "SCHEMA",
    "ColumnShades",
    "OpenedSums",
    "RowChoice",
    "ShadeSums",
    "ShadedColumns",
    "SharedColumns",
    "SumShares",
]

_Commitment = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Columns = Annotated[list[bytes], Meta(min_length=1, max_length=10_000)]
_Residue = Annotated[int, Meta(ge=0, le=2**40)]


class RowChoice(Message, frozen=True, kw_only=True, tag="select.rows"):
    """The label holder's key, and under it one bit a row for each part of the split: whether the row counts there."""

    public: bytes
    train: bytes
    test: bytes
    train_commitment: _Commitment
    test_commitment: _Commitment


class ShadedColumns(Message, frozen=True, kw_only=True, tag="select.columns"):
    """A holder's columns on the rows that count, each row under a shade of its own: uniform to the label holder."""

    bodies: _Columns


class ColumnShades(Message, frozen=True, kw_only=True, tag="select.shades"):
    """The shades of those columns, encrypted under a key of their holder, for the holders that come after it."""

    public: bytes
    bodies: _Columns


class SharedColumns(Message, frozen=True, kw_only=True, tag="select.shared"):
    """The shaded columns, encrypted once more under the label holder's key."""

    of: Name
    bodies: _Columns


class SumShares(Message, frozen=True, kw_only=True, tag="select.sums"):
    """Sums of another holder's shaded columns times one's own, each under an offset: uniform to the label holder."""

    of: Name
    body: bytes


class ShadeSums(Message, frozen=True, kw_only=True, tag="select.shade_sums"):
    """Sums of another holder's shades times one's own columns, less the same offsets: uniform to that holder."""

    body: bytes


class OpenedSums(Message, frozen=True, kw_only=True, tag="select.opened_sums"):
    """What a holder opened of those, modulo t; with the label holder's own share they give the sums of products."""

    other: Name
    sums: list[list[_Residue]]


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})
_BLOCKS = 1 << 30  # 164 kB for 8192 rows of one column
_SUMS = 1 << 28  # 61 kB for one pair of columns

SCHEMA = ProtocolSchema(
    name="select",
    messages=(
        Declared(message=RowChoice, senders=_L, receivers=_P, max_bytes=1 << 28),
        Declared(message=ShadedColumns, senders=_P, receivers=_L, max_bytes=_BLOCKS),
        Declared(message=ColumnShades, senders=_P, receivers=_P, max_bytes=_BLOCKS),
        Declared(message=SharedColumns, senders=_L, receivers=_P, max_bytes=_BLOCKS),
        Declared(message=SumShares, senders=_P, receivers=_L, max_bytes=_SUMS, spends=True),
        Declared(message=ShadeSums, senders=_P, receivers=_P, max_bytes=_SUMS),
        Declared(message=OpenedSums, senders=_P, receivers=_L, max_bytes=_SUMS, spends=True),
    ),
)
"""All messages of this protocol; the rows and bits it picks travel in those of the model."""
