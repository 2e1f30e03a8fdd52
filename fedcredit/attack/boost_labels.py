"""A feature holder guesses labels from the splits that were named to it; alone, or with another feature holder.

All that it receives besides ciphertext and public numbers are the new splits of each round: which of its columns were
wanted, where they were cut, and how early. It does not learn which side is the riskier one, so it is given that here,
as a holder knows its own columns: what is measured is what the *names* of the splits add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.recorder import Recording
from fedcredit.errors import BoundError
from fedcredit.protocol.boost.feature_holder import HolderTrees
from fedcredit.protocol.boost.messages import WantedSplits
from fedcredit.protocol.boost.slots import SlotFormat
from fedcredit.types import PartyId

__all__ = ["LabelGuess", "NamedSplit", "guess_labels", "named_splits", "ranked_right"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NamedSplit:
    """A split as its owner was asked for it.

    Args:
        owner: Whose it is.
        tree: In which tree.
        round: In which round of it.
        feature: Place among the owner's features.
        left: Bins that go left.
    """

    owner: PartyId
    tree: int
    round: int
    feature: int
    left: tuple[int, ...]


@dataclass(frozen=True)
class LabelGuess:
    """Areas under the curve of guesses of the label; 0.5 is blind.

    Args:
        without: All own columns alike, each in its known direction: no message needed.
        splits: The named splits alone, early ones more.
        columns: The columns that were named, weighted by how early.
        best: The better of ``splits`` and ``columns``.
        ceiling: The same columns if the labels were known: a sum of log-odds by bin, fitted to the labels themselves.
        splits_named: How many splits were named.
    """

    without: float
    splits: float
    columns: float
    best: float
    ceiling: float
    splits_named: int


def named_splits(notes: Recording, holder: PartyId, trees: HolderTrees) -> list[NamedSplit]:
    """The splits named to a feature holder, in the order in which it received them."""
    slots = SlotFormat(tuple(own.shape.bins for own in trees.own))
    found = []
    for to, _, message in notes.received:
        if to == holder and isinstance(message, WantedSplits):
            for feature, left in slots.read(message.slots, len(message.slots) // slots.size):
                found.append(NamedSplit(holder, message.tree, message.round, feature, left))
    return found


def guess_labels(
    held: Mapping[PartyId, HolderTrees], named: Sequence[NamedSplit], rows: Bools, bad: Bools
) -> LabelGuess:
    """What some feature holders together can say of the labels; columns count as safer the higher their bin.

    Args:
        held: What each of them has.
        named: All splits named to any of them.
        rows: bool (common rows,), the rows that ``bad`` is about.
        bad: bool (n,), for the score and the ceiling alone.

    Raises:
        BoundError: no split was named: there is nothing to guess with.
    """
    if not named:
        raise BoundError("attack.named", "no split was named to these holders")
    codes = {
        (owner, place): own.codes[rows] / max(1, own.shape.bins - 1)
        for owner, trees in held.items()
        for place, own in enumerate(trees.own)
    }
    without = -np.sum(list(codes.values()), axis=0)
    splits, columns = np.zeros(len(bad)), np.zeros(len(bad))
    weighed: set[tuple[PartyId, int]] = set()
    for one in named:
        weight = 1.0 / (1.0 + one.tree)
        raw = held[one.owner].own[one.feature].codes[rows]
        splits += weight * np.isin(raw, one.left)  # the left side has the lowest bin: the riskier side
        if (one.owner, one.feature) not in weighed:
            columns -= weight * codes[one.owner, one.feature]
            weighed.add((one.owner, one.feature))
    areas = (ranked_right(splits, bad), ranked_right(columns, bad))
    ceiling = np.sum(
        [_log_odds(own.codes[rows], own.shape.bins, bad) for trees in held.values() for own in trees.own], axis=0
    )
    return LabelGuess(ranked_right(without, bad), *areas, max(areas), ranked_right(ceiling, bad), len(named))


def ranked_right(score: Floats, bad: Bools) -> float:
    """Share of pairs of a bad and a good row in which the bad one has the higher score; ties count half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    bads = int(bad.sum())
    return float((middle[place][bad].sum() - bads * (bads + 1) / 2) / (bads * (len(bad) - bads)))


def _log_odds(codes: NDArray[np.int32], bins: int, bad: Bools) -> Floats:
    bads = np.bincount(codes[bad], minlength=bins) + 0.5
    goods = np.bincount(codes[~bad], minlength=bins) + 0.5
    odds: Floats = np.log(bads / goods)[codes]
    return odds
