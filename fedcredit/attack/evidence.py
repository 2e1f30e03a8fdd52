"""From a recording to what a semi-honest label holder can compute with: equations, totals, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.membership import Equations
from fedcredit.attack.recorder import Recording
from fedcredit.errors import BoundError
from fedcredit.protocol.scorecard.messages import Kept, PartialPoints, Selection
from fedcredit.types import PartyId

__all__ = ["LabelHolderView", "RoundOfTotals"]

Ints = NDArray[np.int64]

_BIN = "bin"
_MERGED = "scorecard/bins"

Feature = tuple[PartyId, str]
"""A feature as the label holder names it: owner and code."""


@dataclass(frozen=True)
class RoundOfTotals:
    """One round of totals.

    Args:
        rows: ``"train"`` or ``"test"``.
        tables: Points by merged bin of each kept feature.
        totals: int64 (rows of that part,), the feature holders' points alone.
    """

    rows: str
    tables: Mapping[Feature, Ints]
    totals: Ints


class LabelHolderView:
    """All that the label holder received or sent in one run, in the form an attack needs.

    Args:
        notes: The recording of a run.
        label_holder: Its name.
    """

    def __init__(self, notes: Recording, label_holder: PartyId) -> None:
        self._notes, self._me = notes, label_holder
        self.groups: dict[Feature, Ints] = {}
        self.woe: dict[Feature, Ints] = {}
        self._kept: dict[PartyId, list[str]] = {}
        for sender, to, message in notes.sent:
            if sender == label_holder and isinstance(message, Selection):
                for choice in message.choices:
                    self.groups[to, choice.code] = np.array(choice.group, np.int64)
                    self.woe[to, choice.code] = np.array(choice.woe, np.int64)
            if sender == label_holder and isinstance(message, Kept):
                self._kept[to] = list(message.codes)

    @property
    def kept(self) -> list[Feature]:
        """Feature holders' features in the scorecard."""
        return [(party, code) for party, codes in self._kept.items() for code in codes]

    def prebin_equations(self, feature: Feature) -> Equations:
        """What is known of a feature's fine bins: the three sums of the binning."""
        vectors, sums = self._sums(feature, _BIN)
        return Equations(np.stack(vectors), np.stack(sums))

    def equations(self, feature: Feature) -> Equations:
        """Everything linear that is known of a candidate's merged bins, from all conversations.

        Raises:
            BoundError: the feature is no candidate: it has no merged bins.
        """
        if feature not in self.groups:
            raise BoundError("attack.feature", f"{feature[0]}:{feature[1]} was not chosen in this run")
        vectors, fine = self._sums(feature, _BIN)
        merge = np.eye(int(self.groups[feature].max()) + 1, dtype=np.int64)[self.groups[feature]]
        more, merged = self._sums(feature, _MERGED)
        return Equations(np.stack([*vectors, *more]), np.stack([*(one @ merge for one in fine), *merged]))

    def rounds(self) -> list[RoundOfTotals]:
        """The totals opened, with the tables that went out for them."""
        found = []
        for number, totals in enumerate(self._notes.totals):
            tables: dict[Feature, Ints] = {}
            part = ""
            for sender, to, message in self._notes.sent:
                if sender == self._me and isinstance(message, PartialPoints) and message.round == number:
                    part = message.rows
                    for code, table in zip(self._kept[to], message.tables, strict=True):
                        tables[to, code] = np.array(table, np.int64)
            found.append(RoundOfTotals(part, tables, totals))
        return found

    def _sums(self, feature: Feature, purpose: str) -> tuple[list[Ints], list[Ints]]:
        party, code = feature
        vectors: list[Ints] = []
        sums: list[Ints] = []
        for batch in self._notes.batches:
            if batch.purpose != purpose or party not in batch.features:
                continue
            at = 0
            for name, bins in batch.features[party]:
                if name == code:
                    vectors += batch.columns
                    sums += [one[at : at + bins] for one in batch.sums[party]]
                at += bins
        return vectors, sums
