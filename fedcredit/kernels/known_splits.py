"""Splits of foreign features whose bits are at hand, across all trees of a run, and all that follows from them.

The disclosed splits of a feature part its bins into *cells*: bins that no disclosed split tells apart. The cell of
every row is known, so every split whose sides are unions of cells is known too, and exact, without another bit from
anyone: two disclosed splits of a category make up to four cells and seven splits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.tree_model import BoostedTrees, Split, TreeFeature, left_bits

__all__ = ["KnownSplits", "model_bits", "needed_splits"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Ints = NDArray[np.int64]

_START = 8  # rows that there is room for at first


class KnownSplits:
    """Known splits of foreign features, and the numbers of the splits that a model uses.

    Args:
        features: All features of the run.
        rows: Number of rows, n.
    """

    def __init__(self, features: Sequence[TreeFeature], rows: int) -> None:
        self._features = tuple(features)
        self._rows = rows
        self._places: dict[Split, int] = {}
        self._bits = np.zeros((0, rows), dtype=np.uint8)
        self._cells = {number: np.zeros(one.bins, dtype=np.int64) for number, one in enumerate(features) if one.foreign}
        self._lines: dict[int, int] = {}  # features with more than one cell, and where their rows' cells are kept
        wide = any(one.foreign and one.bins > np.iinfo(np.uint8).max for one in features)
        self._codes: Codes = np.zeros((0, rows), dtype=np.uint16 if wide else np.uint8)
        self._numbers: dict[Split, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, split: Split) -> bool:
        """Whether the bits of a split are known: disclosed, or following from what is."""
        return self.follows(split)

    def follows(self, split: Split, also: Collection[Split] = ()) -> bool:
        """Whether the bits of a split follow from the disclosed ones and those of ``also``."""
        if split.feature not in self._cells:
            return False
        cells = self._cells[split.feature]
        for other in also:
            if other.feature == split.feature:
                cells = cells * 2
                cells[list(other.left)] += 1
        inside = cells[list(split.left)]
        return int(np.isin(cells, inside).sum()) == len(split.left)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The disclosed splits in order of disclosure."""
        return tuple(self._places)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """uint8 (disclosed, n), 1 = the row goes left, in order of disclosure. Not to be written to."""
        return self._bits[: len(self._places)]

    @property
    def features(self) -> tuple[int, ...]:
        """Features with a disclosed split, in order of first disclosure."""
        return tuple(self._lines)

    @property
    def codes(self) -> Codes:
        """uint8 or uint16 (features with a disclosed split, n): the cell of each row. Not to be written to."""
        return self._codes[: len(self._lines)]

    @property
    def numbered(self) -> tuple[Split, ...]:
        """The splits of the model, own ones too, in order of first use."""
        return tuple(self._numbers)

    def add(self, split: Split, bits: Bools) -> None:
        """Takes a disclosed split in.

        Args:
            split: A canonical split of a foreign feature, not disclosed yet.
            bits: bool (n,), True = the row goes left.

        Raises:
            DataError: The split is disclosed already or not of a foreign feature, or the bits do not fit.
        """
        if split in self._places or not self._features[split.feature].foreign:
            raise DataError("kernels.known-split", f"a split of feature {split.feature} is disclosed or not foreign")
        if bits.dtype != np.bool_ or bits.shape != (self._rows,):
            raise DataError("kernels.known-split", f"bits are {bits.dtype} {bits.shape}; bool {self._rows} are needed")
        place, line = len(self._places), self._lines.setdefault(split.feature, len(self._lines))
        self._bits, self._codes = _room(self._bits, place), _room(self._codes, line)
        self._bits[place] = bits
        self._places[split] = place
        self._part(split, bits, line)

    def index_of(self, split: Split) -> int:
        """Row of a disclosed split in :attr:`bits`.

        Raises:
            DataError: The split was not disclosed.
        """
        place = self._places.get(split)
        if place is None:
            raise DataError("kernels.known-split", f"a split of feature {split.feature} was not disclosed")
        return place

    def bits_of(self, split: Split) -> Bools:
        """Bits of a known split, bool (n,).

        Raises:
            DataError: The split is not known.
        """
        if split not in self:
            raise DataError("kernels.known-split", f"the bits of a split of feature {split.feature} are not known")
        cells = self._cells[split.feature]
        table = np.zeros(int(cells.max()) + 1, dtype=np.bool_)
        table[cells[list(split.left)]] = True
        bits: Bools = table[self._codes[self._lines[split.feature]]]
        return bits

    def used(self, feature: int) -> int:
        """Number of disclosed splits of a feature."""
        return sum(split.feature == feature for split in self._places)

    def room(self, feature: int) -> int | None:
        """Number of splits that a foreign feature may still disclose; None = no limit."""
        cap = self._features[feature].thresholds
        return None if cap is None else max(0, cap - self.used(feature))

    def cells(self, feature: int) -> Ints:
        """Cell of each bin of a foreign feature: int64 (bins,). Cells with ordered bins come first, in order."""
        return self._cells[feature]

    def coarse(self, feature: int) -> TreeFeature:
        """A foreign feature as its cells show it."""
        cells, known = self._cells[feature], self._features[feature]
        ordered = len(set(cells[: known.ordered].tolist()))
        return replace(known, bins=int(cells.max()) + 1, ordered=ordered)

    def fine(self, split: Split) -> Split:
        """A split of the cells as a split of the bins."""
        places = np.flatnonzero(np.isin(self._cells[split.feature], split.left))
        return Split(split.feature, tuple(places.tolist()))

    @property
    def shapes(self) -> tuple[TreeFeature, ...]:
        """All features of the run."""
        return self._features

    def closed(self, numbered: int) -> KnownSplits:
        """The same knowledge without room for any further split.

        Args:
            numbered: Splits of the model that keep their number; any later one gets a new one.
        """
        other = copy(self)
        shapes = tuple(replace(one, thresholds=0) if one.foreign else one for one in self._features)
        vars(other).update(_features=shapes, _numbers=dict(list(self._numbers.items())[:numbered]))
        return other

    def number(self, split: Split) -> int:
        """Number of a split in the model; the next free one where it is used for the first time."""
        return self._numbers.setdefault(split, len(self._numbers))

    def _part(self, split: Split, bits: Bools, line: int) -> None:
        """Parts the cells of a feature by one more split."""
        old = self._cells[split.feature]
        sides = old * 2
        sides[list(split.left)] += 1
        # Cells are numbered by their first bin: a cell with ordered bins is an interval of them, and those come first.
        _, first, new = np.unique(sides, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        self._cells[split.feature] = rank[new]
        table = np.zeros(2 * int(old.max()) + 2, dtype=self._codes.dtype)
        table[sides] = self._cells[split.feature]
        self._codes[line] = table[self._codes[line].astype(np.int64) * 2 + bits]


def _room(kept: NDArray[Any], place: int) -> NDArray[Any]:
    """The same rows with room for row ``place``."""
    if place < len(kept):
        return kept
    grown = np.zeros((max(_START, 2 * len(kept)), kept.shape[1]), dtype=kept.dtype)
    grown[: len(kept)] = kept
    return grown


def model_bits(model: BoostedTrees, codes: Codes, disclosed: Mapping[Split, Bools]) -> Bools:
    """Every split's bit of every row, for rows that may be others than those trained on.

    Args:
        model: The model.
        codes: (own features, n), bins of the features that are not foreign, in order of features.
        disclosed: Bits of the disclosed splits, bool (n,) each; splits that follow from them need no bits of their own.

    Returns:
        bool (n, S), S = number of splits of the model.

    Raises:
        DataError: A split of a foreign feature does not follow from the disclosed ones.
    """
    known = KnownSplits(model.features, codes.shape[1])
    for split, bits in disclosed.items():
        known.add(split, bits)
    own = {place: line for line, place in enumerate(p for p, one in enumerate(model.features) if not one.foreign)}
    result = np.empty((codes.shape[1], len(model.splits)), dtype=np.bool_)
    for number, split in enumerate(model.splits):
        line = own.get(split.feature)
        result[:, number] = known.bits_of(split) if line is None else left_bits(split, codes[line])
    return result


def needed_splits(model: BoostedTrees, disclosed: Sequence[Split]) -> set[Split]:
    """The disclosed splits that a model's splits are or follow from."""
    needed: set[Split] = set()
    for split in model.splits:
        if model.features[split.feature].foreign:
            needed |= {split} if split in disclosed else {one for one in disclosed if one.feature == split.feature}
    return needed
