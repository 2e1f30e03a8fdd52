"""Splits whose bits are at hand, across all trees of a run, and the numbers of the splits in use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.tree_model import Split, TreeFeature

__all__ = ["KnownSplits"]

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

_START = 8  # splits that there is room for at first


class KnownSplits:
    """Distinct splits of foreign features whose bits have been disclosed: from then on they are free and exact.

    Args:
        features: All features of the run.
        rows: Number of rows, n.
    """

    def __init__(self, features: Sequence[TreeFeature], rows: int) -> None:
        self._features = tuple(features)
        self._rows = rows
        self._places: dict[Split, int] = {}
        self._bits = np.zeros((0, rows), dtype=np.uint8)
        self._used = [0] * len(self._features)
        self._numbers: dict[Split, int] = {}

    @property
    def splits(self) -> tuple[Split, ...]:
        """The known splits in order of disclosure."""
        return tuple(self._places)

    @property
    def bits(self) -> Bytes:
        """uint8 (S, n), 1 = the row goes left; one row a known split, in order of disclosure. Not to be written to."""
        return self._bits[: len(self._places)]

    @property
    def numbered(self) -> tuple[Split, ...]:
        """The splits of the model, own ones too, in order of first use."""
        return tuple(self._numbers)

    def add(self, split: Split, bits: Bools) -> None:
        """Keeps the bits of a split.

        Args:
            split: A canonical split of a foreign feature, not known yet.
            bits: bool (n,), True = the row goes left.

        Raises:
            DataError: The split is known, is not of a foreign feature, or the bits are of another shape or type.
        """
        if split in self._places or not self._features[split.feature].foreign:
            raise DataError("kernels.known-split", f"a split of feature {split.feature} is known or not foreign")
        if bits.dtype != np.bool_ or bits.shape != (self._rows,):
            raise DataError("kernels.known-split", f"bits are {bits.dtype} {bits.shape}; bool {self._rows} are needed")
        place = len(self._places)
        if place == len(self._bits):
            grown = np.zeros((max(_START, 2 * place), self._rows), dtype=np.uint8)
            grown[:place] = self._bits
            self._bits = grown
        self._bits[place] = bits
        self._places[split] = place
        self._used[split.feature] += 1

    def __contains__(self, split: Split) -> bool:
        return split in self._places

    def __len__(self) -> int:
        return len(self._places)

    def index_of(self, split: Split) -> int:
        """Row of a known split in :attr:`bits`.

        Raises:
            DataError: The split is not known.
        """
        place = self._places.get(split)
        if place is None:
            raise DataError("kernels.known-split", f"the bits of a split of feature {split.feature} are not known")
        return place

    def bits_of(self, split: Split) -> Bools:
        """Bits of a known split: bool (n,), a view."""
        bits: Bools = self._bits[self.index_of(split)].view(np.bool_)
        return bits

    def used(self, feature: int) -> int:
        """Number of known splits of a feature."""
        return self._used[feature]

    def left(self, feature: int) -> int | None:
        """Number of new splits that a foreign feature may still disclose; None = no limit."""
        cap = self._features[feature].thresholds
        return None if cap is None else max(0, cap - self._used[feature])

    def number(self, split: Split) -> int:
        """Number of a split in the model; the next free one where it is used for the first time."""
        return self._numbers.setdefault(split, len(self._numbers))
