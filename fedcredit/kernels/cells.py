"""A column of numbers or names as 64-bit keys, and a grid over them that is refined where it has to be.

Several banks that add up their counts by cell see the column of all of them as a histogram whose cells are narrow where
a cut falls and hold several rows on average: enough for quantiles and frequent categories, too coarse for single rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError

__all__ = ["FIRST_BITS", "CellGrid", "keys_of_names", "keys_of_numbers", "number_between", "number_of_key"]

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

FIRST_BITS: Final = 12
"""Bits of a key that the first grid tells apart: the sign and the binary exponent of a number."""

_KEY_BITS: Final = 64
_MOST_BITS: Final = 10  # of one refinement
_SIGN: Final = np.uint64(1 << 63)
_DIGITS: Final = 17  # enough for any double


def keys_of_numbers(values: NDArray[np.float64]) -> Keys:
    """Keys in the order of the numbers; uint64 (n,).

    The bits of a double, read as an integer, are in its order among positive numbers and in reverse among negative
    ones: the former get the top bit, the latter are inverted.

    Args:
        values: float64 (n,), finite; 0 and -0 have one key.

    Raises:
        DataError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise DataError("data.column-infinite", "a column has infinite values; leave such cells empty")
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def number_of_key(key: int) -> float:
    """The number whose key this is."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & ((1 << 64) - 1)
    return float(np.array([bits], dtype=np.uint64).view(np.float64)[0])


def number_between(low: int, high: int) -> float:
    """The number with the fewest decimal digits whose key is in [low, high)."""
    bottom, top = number_of_key(low), number_of_key(high)
    for digits in range(1, _DIGITS + 1):
        for start in (bottom, top):
            candidate = float(f"{start:.{digits}g}")
            if bottom <= candidate < top:
                return candidate
    return bottom


def keys_of_names(names: Sequence[str], key: bytes) -> Keys:
    """Keyed hashes of names, uint64 (n,): the same at every bank, without order.

    Args:
        names: Any texts.
        key: At most 64 bytes, the same at every bank.

    Source: RFC 7693 (BLAKE2b), keyed.
    """
    hashed = [hashlib.blake2b(name.encode(), key=key, digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(hashed), dtype=">u8").astype(np.uint64)


@dataclass(frozen=True)
class CellGrid:
    """Cells that hold any row at all, in ascending order, with totals.

    Args:
        low: uint64 (m,), least key of each cell.
        shift: int64 (m,), its width is 2^shift keys.
        counts: int64 (m,), rows in it, all >= 1.
    """

    low: Keys
    shift: Ints
    counts: Ints

    @staticmethod
    def first_counts(keys: Keys) -> Ints:
        """int64 (2^FIRST_BITS,), own rows by cell of the first grid."""
        cells = (keys >> np.uint64(_KEY_BITS - FIRST_BITS)).astype(np.int64)
        return np.bincount(cells, minlength=1 << FIRST_BITS).astype(np.int64)

    @classmethod
    def first(cls, counts: Ints) -> CellGrid:
        """The first grid from the totals of `first_counts`."""
        cells = np.flatnonzero(counts)
        low = cells.astype(np.uint64) << np.uint64(_KEY_BITS - FIRST_BITS)
        return cls(low, np.full(len(cells), _KEY_BITS - FIRST_BITS, np.int64), counts[cells].astype(np.int64))

    def high(self, place: int) -> int:
        """Largest key of a cell."""
        return int(self.low[place]) + (1 << int(self.shift[place])) - 1

    def parts(self, place: int, least_rows: int) -> int:
        """Bits by which a cell is refined: a part of it holds a quarter of ``least_rows`` on average, or more."""
        affordable = (4 * int(self.counts[place]) // least_rows).bit_length() - 1
        return int(np.clip(affordable, 0, min(_MOST_BITS, int(self.shift[place]))))

    def part_counts(self, keys: Keys, places: Sequence[int], least_rows: int) -> Ints:
        """Own rows by part of the cells that are refined, one cell after the other.

        Args:
            keys: uint64 (n,), sorted.
            places: Cells to refine.
            least_rows: As in `parts`, at least 1.
        """
        counts = [np.zeros(0, np.int64)]
        for place in places:
            tops = [high for _, high in self._parts_of(place, least_rows)]
            upto = np.searchsorted(keys, np.array(tops, dtype=np.uint64), side="right")
            start = np.searchsorted(keys, self.low[place], side="left")
            counts.append(np.diff(upto, prepend=start).astype(np.int64))
        return np.concatenate(counts)

    def refined(self, totals: Ints, places: Sequence[int], least_rows: int) -> CellGrid:
        """The grid after the totals of `part_counts`.

        Args:
            totals: int64 (parts,), in the order of `part_counts`.
            places: As there.
            least_rows: As there.
        """
        low, shift, counts = [], [], []
        at = 0
        chosen = set(places)
        offsets = {}
        for place in places:
            offsets[place] = at
            at += 1 << self.parts(place, least_rows)
        for place in range(len(self.counts)):
            if place not in chosen:
                low.append(int(self.low[place]))
                shift.append(int(self.shift[place]))
                counts.append(int(self.counts[place]))
                continue
            width = int(self.shift[place]) - self.parts(place, least_rows)
            for number, (start, _) in enumerate(self._parts_of(place, least_rows), start=offsets[place]):
                if totals[number] > 0:
                    low.append(start)
                    shift.append(width)
                    counts.append(int(totals[number]))
        return CellGrid(np.array(low, np.uint64), np.array(shift, np.int64), np.array(counts, np.int64))

    def places_of(self, keys: Keys) -> Ints:
        """The cell of each key, int64 (n,); -1 where no cell holds it."""
        if not len(self.low):
            return np.full(len(keys), -1, np.int64)
        places = np.searchsorted(self.low, keys, side="right").astype(np.int64) - 1
        highs = np.array([self.high(place) for place in range(len(self.low))], np.uint64)
        inside = (places >= 0) & (keys <= highs[np.maximum(places, 0)])
        return np.where(inside, places, -1)

    def _parts_of(self, place: int, least_rows: int) -> list[tuple[int, int]]:
        """Least and largest key of each part of a cell."""
        bits = self.parts(place, least_rows)
        width = 1 << (int(self.shift[place]) - bits)
        start = int(self.low[place])
        return [(start + part * width, start + (part + 1) * width - 1) for part in range(1 << bits)]
