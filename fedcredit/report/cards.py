"""Features of a scorecard as a reader may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcredit.report.files import Dropped, Feature
from fedcredit.report.words import amount, at_most, decimals, dropped_reason, percent

__all__ = ["BinRow", "Card", "DroppedRow", "cards_of", "dropped_rows"]


@dataclass(frozen=True)
class BinRow:
    """One line of a feature's bin table; ``low`` and ``width`` place its bar of points, in per cent of the cell."""

    label: str
    share: str
    bad_rate: str
    woe: str
    points: str
    low: float
    width: float
    negative: bool


@dataclass(frozen=True)
class Card:
    """One feature with its bins.

    Args:
        name: Its name to its owner, its code to everyone else.
        owner: Party that holds it.
        own: Whether the reader is the owner.
        zero: Where zero points stand in the bar cells, in per cent.
        feature: The numbers as read.
        bins: Its bins.
    """

    name: str
    owner: str
    own: bool
    zero: float
    feature: Feature
    bins: list[BinRow]

    @property
    def full_name(self) -> str:
        """A name that no other feature of the run has: another party's code with its owner."""
        return self.name if self.own else f"{self.owner} {self.name}"


@dataclass(frozen=True)
class DroppedRow:
    """A feature that did not enter, and why, in words."""

    owner: str
    name: str
    reason: str


def cards_of(features: Sequence[Feature], party: str) -> list[Card]:
    """Features as ``party`` may see them: names and labels only of its own, whatever the file holds.

    All bars of points have one scale, so that a long bar is a feature that moves the score.
    """
    shown = [part.points for feature in features for part in feature.bins]
    low, high = min([0.0, *shown]), max([0.0, *shown])
    return [_card(feature, party, low, (high - low) or 1.0) for feature in features]


def _card(feature: Feature, party: str, least: float, span: float) -> Card:
    own = feature.owner == party
    rows = sum((part.goods or 0) + (part.bads or 0) for part in feature.bins)
    lines = []
    for number, part in enumerate(feature.bins, start=1):
        here = None if part.goods is None or part.bads is None else part.goods + part.bads
        lines.append(
            BinRow(
                label=_label(part.label, feature.kind) if own and part.label else f"bin {number}",
                share=percent(None if here is None or rows == 0 else here / rows),
                bad_rate=percent(part.bads / here if here and part.bads is not None else None),
                woe=decimals(part.woe, 2),
                points=amount(part.points),
                low=round(100 * (min(part.points, 0.0) - least) / span, 2),
                width=round(100 * abs(part.points) / span, 2),
                negative=part.points < 0,
            )
        )
    name = feature.name if own and feature.name else feature.code
    return Card(name, feature.owner, own, round(-100 * least / span, 2), feature, lines)


def _label(label: str, kind: str | None) -> str:
    return at_most(label) if kind == "numeric" else label


def dropped_rows(dropped: Sequence[Dropped], party: str) -> list[DroppedRow]:
    """Dropped features in words, with names only of the reader's own."""
    return [
        DroppedRow(row.owner, row.name if row.owner == party and row.name else row.code, dropped_reason(row))
        for row in dropped
    ]
