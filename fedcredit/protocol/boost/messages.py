"""Messages of boosting."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fedcredit.types import Role
from fedcredit.wire.message import Message, Part
from fedcredit.wire.schema import Declared, ProtocolSchema

__all__ = [
    "SCHEMA",
    "Bitmaps",
    "BoostBasis",
    "ChosenPaths",
    "KeptSplits",
    "Offer",
    "Paths",
    "TreeShape",
    "TreeShapes",
    "TreeStart",
    "WantedSplits",
]

_Code = Annotated[str, Meta(min_length=1, max_length=20)]
_Tree = Annotated[int, Meta(ge=0, le=10_000)]
_Round = Annotated[int, Meta(ge=0, le=1024)]


class BoostBasis(Message, frozen=True, kw_only=True, tag="boost.basis"):
    """Signed by the label holder: the sizes that set the holders' caps."""

    n_eff: Annotated[int, Meta(ge=1)]
    n_bad: Annotated[int, Meta(ge=1)]


class TreeShape(Part, frozen=True, kw_only=True):
    """What the label holder must know of a feature to split on it; no name, no edges."""

    code: _Code
    bins: Annotated[int, Meta(ge=1, le=10_000)]
    ordered: Annotated[int, Meta(ge=0, le=10_000)]
    monotone: Literal["", "increasing", "decreasing"]
    thresholds: Annotated[int, Meta(ge=0, le=1 << 24)]


class TreeShapes(Message, frozen=True, kw_only=True, tag="boost.shapes"):
    """All features of a holder, in an order drawn for this run."""

    features: list[TreeShape]


class TreeStart(Message, frozen=True, kw_only=True, tag="boost.tree"):
    """A tree begins, or, without ``more``, there is none."""

    tree: _Tree
    more: bool


class Offer(Message, frozen=True, kw_only=True, tag="boost.offer"):
    """Which of its features a holder answers for in this tree, by its own draw: one bit each, padded with zeros."""

    tree: _Tree
    offered: Annotated[bytes, Meta(min_length=1, max_length=1 << 13)]


class WantedSplits(Message, frozen=True, kw_only=True, tag="boost.splits"):
    """New splits whose bitmaps are needed: a fixed number of slots of fixed size, the unused ones at the end."""

    tree: _Tree
    round: _Round
    slots: Annotated[bytes, Meta(min_length=1, max_length=1 << 22)]


class Bitmaps(Message, frozen=True, kw_only=True, tag="boost.bitmaps"):
    """For every wanted split one bit a row that is not held out: whether it goes left; most significant bit first.

    Where rows are hidden, the bits of all rows times the label holder's encrypted choice.
    """

    tree: _Tree
    round: _Round
    bitmaps: list[bytes]


class KeptSplits(Message, frozen=True, kw_only=True, tag="boost.kept"):
    """Which of a holder's disclosed splits are in the model: one bit each in the order disclosed, of fixed length."""

    kept: Annotated[bytes, Meta(min_length=1, max_length=1 << 22)]


class Paths(Message, frozen=True, kw_only=True, tag="boost.paths"):
    """Whether each row to score goes left at each of the holder's splits, all at once: row by row, packed."""

    rows: Annotated[int, Meta(ge=0, le=1 << 26)]
    splits: Annotated[int, Meta(ge=0, le=1 << 24)]
    bits: bytes


class ChosenPaths(Message, frozen=True, kw_only=True, tag="boost.chosen_paths"):
    """For each of the holder's splits the bits of all rows, times the label holder's encrypted choice of rows."""

    bodies: list[bytes]


_L, _P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})
_SMALL = 1 << 10
_SHAPES = 1 << 22
_BITS = 1 << 30  # a thousand bitmaps of a million rows are 125 MB

SCHEMA = ProtocolSchema(
    name="boost",
    messages=(
        Declared(message=BoostBasis, senders=_L, receivers=_P, max_bytes=_SMALL),
        Declared(message=TreeShapes, senders=_P, receivers=_L, max_bytes=_SHAPES, spends=True),
        Declared(message=TreeStart, senders=_L, receivers=_P, max_bytes=_SMALL),
        Declared(message=Offer, senders=_P, receivers=_L, max_bytes=1 << 14),
        Declared(message=WantedSplits, senders=_L, receivers=_P, max_bytes=1 << 23),
        Declared(message=Bitmaps, senders=_P, receivers=_L, max_bytes=_BITS, spends=True),
        Declared(message=KeptSplits, senders=_L, receivers=_P, max_bytes=1 << 23),
        Declared(message=Paths, senders=_P, receivers=_L, max_bytes=_BITS, spends=True),
        Declared(message=ChosenPaths, senders=_P, receivers=_L, max_bytes=_BITS, spends=True),
    ),
)
"""All messages of this protocol besides those of its group sums."""
