"""What a label holder knows of every foreign feature after a boosting run: sums, and sides of disclosed splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.membership import Equations
from fedcredit.attack.recorder import Recording
from fedcredit.protocol.boost.messages import Bitmaps, TreeShapes, WantedSplits
from fedcredit.protocol.boost.slots import SlotFormat, unpack_bits
from fedcredit.types import PartyId

__all__ = ["BoostView"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Feature = tuple[PartyId, str]
"""A feature as the label holder names it: owner and code."""

_PURPOSE = "boost"


@dataclass(frozen=True)
class _Bitmap:
    """One disclosed split: the bins that go left, and the rows that do."""

    left: tuple[int, ...]
    rows: Bools


class BoostView:
    """All that the label holder received or sent in one boosting run, in the form an attack needs.

    Rows are those that are not held out, in the common order: no sum and no bitmap of training is about others.

    Args:
        notes: The recording of a run.
        label_holder: Its name.
        noise: Standard deviation of the holders' noise in a sum, in units of the vectors; 0 = exact.
    """

    def __init__(self, notes: Recording, label_holder: PartyId, noise: float) -> None:
        self._notes, self._me, self._noise = notes, label_holder, noise
        self.bins: dict[Feature, int] = {}
        self.ordered: dict[Feature, int] = {}
        self.splits: dict[Feature, list[_Bitmap]] = {}
        codes: dict[PartyId, list[str]] = {}
        for to, sender, message in notes.received:
            if to == label_holder and isinstance(message, TreeShapes):
                codes[sender] = [shape.code for shape in message.features]
                self.bins |= {(sender, shape.code): shape.bins for shape in message.features}
                self.ordered |= {(sender, shape.code): shape.ordered for shape in message.features}
        for party, names in codes.items():
            self._read_bitmaps(party, names)

    @property
    def features(self) -> list[Feature]:
        """All foreign features of two bins or more."""
        return [feature for feature, bins in self.bins.items() if bins > 1]

    @property
    def rows(self) -> int:
        """Number of rows that are not held out."""
        return len(self._notes.batches[0].columns[0])

    def disclosed(self, feature: Feature) -> int:
        """Number of disclosed splits of a feature."""
        return len(self.splits.get(feature, []))

    def asked(self, feature: Feature) -> bool:
        """Whether any sum was told about a feature."""
        return len(self.equations(feature).vectors) > 0

    def allowed(self, feature: Feature) -> Bools:
        """Bins each row can be in by the disclosed splits; bool (n, B)."""
        rows = np.ones((self.rows, self.bins[feature]), np.bool_)
        for bitmap in self.splits.get(feature, []):
            left = np.zeros(self.bins[feature], np.bool_)
            left[list(bitmap.left)] = True
            rows &= np.where(bitmap.rows[:, None], left, ~left)
        return rows

    def equations(self, feature: Feature) -> Equations:
        """Everything that is known of a feature: noisy sums over all asked nodes, and the sides of all splits.

        The sums of a sibling are differences of these, and add nothing. Empty slots are left out: they tell noise.
        """
        asked = [one for one in self.answers(feature).values() if one[0].any()]
        shape = (len(asked), self.rows)
        noise = np.full(len(asked), self._noise) if self._noise and asked else None
        return Equations(
            np.array([vector for vector, _ in asked], np.int64).reshape(shape),
            np.array([sums for _, sums in asked], np.int64).reshape(len(asked), self.bins[feature]),
            noise,
            self.allowed(feature) if self.disclosed(feature) else None,
        )

    def answers(self, feature: Feature) -> dict[tuple[int, int], tuple[Ints, Ints]]:
        """Vector and sums of every slot of every request that was not withheld, by request and slot; empty ones too."""
        party, code = feature
        found = {}
        batches = [one for one in self._notes.batches if one.purpose == _PURPOSE and party in one.features]
        for number, batch in enumerate(batches):
            at = sum(bins for _, bins in _before(batch.features[party], code))
            here = slice(at, at + self.bins[feature])
            if not batch.withheld.get(party, np.zeros(0, np.bool_))[here].any():
                for slot, (vector, sums) in enumerate(zip(batch.columns, batch.sums[party], strict=True)):
                    found[number, slot] = (vector, sums[here])
        return found

    def _read_bitmaps(self, party: PartyId, codes: Sequence[str]) -> None:
        """Splits as they were asked of a holder, with the bits it sent for them."""
        slots = SlotFormat(tuple(self.bins[party, code] for code in codes))
        wanted = {
            (message.tree, message.round): slots.read(message.slots, len(message.slots) // slots.size)
            for sender, to, message in self._notes.sent
            if sender == self._me and to == party and isinstance(message, WantedSplits)
        }
        for to, sender, message in self._notes.received:
            if to == self._me and sender == party and isinstance(message, Bitmaps):
                splits = wanted[message.tree, message.round]
                for (place, left), bits in zip(splits, message.bitmaps, strict=True):
                    rows = unpack_bits(bits, (self.rows,), "bitmap")
                    self.splits.setdefault((party, codes[place]), []).append(_Bitmap(left, rows))


def _before(features: Sequence[tuple[str, int]], code: str) -> list[tuple[str, int]]:
    names = [name for name, _ in features]
    return list(features[: names.index(code)])
