"""How columns become inputs of a network when nobody may see more of them than sums over all banks.

Two sums are enough. The first counts, for each numeric column, values by binary exponent (which gives a common scale
beyond which values are clipped) and, for each category column, rows by hashed category. The second adds up values and
squares in units of the scale. Scales are powers of two and all else are quotients and square roots of doubles, so that
every bank has the same encoding to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError
from fedcredit.kernels.nn import Rows

__all__ = [
    "BUCKETS",
    "MAX_ROWS",
    "MOMENT_UNIT",
    "Encoding",
    "bucket_counts",
    "common_scales",
    "exponent_counts",
    "moment_sums",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BUCKETS = 4096
"""Categories are told apart by 12 bits of a hash: of 40 categories, any two share a bucket in one run of five."""

MAX_ROWS = 1 << 24
"""Most rows of one bank; a province has 1.8 million small enterprises."""

MOMENT_UNIT = 1 << 16
"""Sums of values in units of their scale are rounded to 2^-16: with n rows, an error of 2^-17 / n a bank in a mean."""

_LOWEST, _CELLS = -63, 128  # exponents from 2^-63 to 2^64; what lies beyond is counted at the end of the range
_CLIPPED = 1e-3  # share of the values that are not 0 beyond the common scale, at most
_FURTHEST = 8.0  # standard deviations; one row should not carry a step by itself
_LEAST_DEVIATION = 1e-7  # of the scale; below, a column counts as constant


def exponent_counts(numbers: Floats) -> Ints:
    """Rows of each numeric column by binary exponent of the value.

    Args:
        numbers: float64 (n, p), NaN = missing.

    Returns:
        int64 (p, 129): zeros, then values below 2^-63 up to values of 2^63 and more. Missing values are not counted.
    """
    counts = np.zeros((numbers.shape[1], 1 + _CELLS), dtype=np.int64)
    for at, column in enumerate(numbers.T):
        known = column[~np.isnan(column)]
        _, exponent = np.frexp(known)  # |x| in [2^(e-1), 2^e)
        cell = np.where(known == 0, 0, 1 + np.clip(exponent - _LOWEST, 0, _CELLS - 1))
        counts[at] = np.bincount(cell, minlength=1 + _CELLS)
    return counts


def bucket_counts(buckets: Ints) -> Ints:
    """Rows of each category column by bucket.

    Args:
        buckets: int64 (n, c) in [0, 4096), -1 = missing.

    Returns:
        int64 (c, 4097); missing values last.
    """
    places = np.where(buckets < 0, BUCKETS, buckets)
    counts = [np.bincount(column, minlength=BUCKETS + 1) for column in places.T]
    return np.stack(counts).astype(np.int64) if counts else np.zeros((0, BUCKETS + 1), dtype=np.int64)


def common_scales(counts: Ints, least: float = 0.0) -> Ints:
    """Exponent of each column's scale: all but a thousandth of the values that are not 0 lie below it.

    Args:
        counts: int64 (p, 129), of all banks together.
        least: Smaller counts are taken for 0; for counts with noise.

    Returns:
        int64 (p,); 0 for a column that holds nothing but zeros.
    """
    scales = np.zeros(len(counts), dtype=np.int64)
    for at, row in enumerate(np.where(counts[:, 1:] > least, counts[:, 1:], 0).tolist()):
        beyond = math.floor(sum(row) * _CLIPPED)
        left = sum(row)
        for cell, count in enumerate(row):
            left -= count
            if left <= beyond and sum(row):
                scales[at] = cell + _LOWEST
                break
    return scales


def _scaled(numbers: Floats, scales: Ints) -> Floats:
    """Values in units of the scales, in [-1, 1]; NaN stays."""
    return np.clip(np.ldexp(numbers, -scales.astype(np.int32)[None, :]), -1.0, 1.0)


def moment_sums(numbers: Floats, scales: Ints) -> Ints:
    """Number of values, their sum and the sum of their squares, in units of the scale, clipped to it.

    Args:
        numbers: float64 (n, p), NaN = missing; n at most 2^24.
        scales: int64 (p,).

    Returns:
        int64 (p, 3), all in units of 2^-16, so that noise of one size suits them all. They lie within 2^40.

    Raises:
        BoundError: too many rows.
    """
    if len(numbers) > MAX_ROWS:
        raise BoundError("nn.rows", f"{len(numbers)} rows at one bank; at most {MAX_ROWS} are possible")
    scaled = _scaled(numbers, scales)
    known = ~np.isnan(scaled)
    values = np.where(known, scaled, 0.0)
    sums = np.column_stack([known.sum(axis=0), values.sum(axis=0), (values * values).sum(axis=0)])
    found: Ints = np.rint(sums * MOMENT_UNIT).astype(np.int64)
    return found


@dataclass(frozen=True)
class Encoding:
    """How a row's columns become a network's inputs; the same at all banks.

    Args:
        scales: Exponent of each numeric column's scale.
        means: In units of the scale.
        deviations: Standard deviations in units of the scale, > 0.
        missing: Numeric columns, by number, for which an input says whether the value is missing.
        kept: For each category column the buckets with a code of their own, rising: code 1, 2, ….
        missing_kept: Whether missing has a code of its own there, the last one; else it is 0 as all rare ones.
    """

    scales: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    missing: tuple[int, ...]
    kept: tuple[tuple[int, ...], ...]
    missing_kept: tuple[bool, ...]

    @classmethod
    def of_sums(
        cls, rows: int, scales: Ints, moments: Ints, buckets: Ints, least_rows: int, hidden: float = 0.0
    ) -> Encoding:
        """From sums over all banks.

        Args:
            rows: Of all banks.
            scales: As `common_scales`.
            moments: As `moment_sums`, added up.
            buckets: As `bucket_counts`, added up.
            least_rows: Rows below which a category, or a missing value, is nothing of its own.
            hidden: Rows that noise in the moments can hide. As many missing values are taken for none, and variances
                are raised to what it can hide of them: a variance that vanished would make a column's inputs huge.
        """
        means, deviations, missing = [], [], []
        for at, (count, total, squares) in enumerate((moments / MOMENT_UNIT).tolist()):
            known = min(max(count, 1.0, hidden), float(rows))
            mean = total / known
            deviation = math.sqrt(max(squares / known - mean * mean, hidden / known))
            means.append(mean)
            deviations.append(deviation if deviation > _LEAST_DEVIATION else 1.0)
            if rows - count >= max(least_rows, hidden):
                missing.append(at)
        kept = tuple(tuple(np.flatnonzero(row[:BUCKETS] >= least_rows).tolist()) for row in buckets)
        missing_kept = tuple(bool(row[BUCKETS] >= least_rows) for row in buckets)
        return cls(tuple(scales.tolist()), tuple(means), tuple(deviations), tuple(missing), kept, missing_kept)

    @property
    def inputs(self) -> int:
        """Numeric inputs: columns, then what says that one is missing."""
        return len(self.scales) + len(self.missing)

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of each category column."""
        return tuple(1 + len(kept) + also for kept, also in zip(self.kept, self.missing_kept, strict=True))

    def directions(self, of_columns: Sequence[int]) -> tuple[int, ...]:
        """Directions of the inputs from those of the columns; that a value is missing has none."""
        return (*of_columns, *(0 for _ in self.missing))

    def rows(self, numbers: Floats, buckets: Ints, bad: NDArray[np.bool_]) -> Rows:
        """Rows as a network takes them.

        A value is put in standard deviations from the mean, at most 8 of them; a missing one at the mean.

        Args:
            numbers: float64 (n, p), NaN = missing.
            buckets: int64 (n, c), -1 = missing.
            bad: bool (n,).
        """
        scaled = _scaled(numbers, np.array(self.scales, dtype=np.int64))
        standard = (scaled - np.array(self.means)) / np.array(self.deviations)
        unknown = np.isnan(standard)
        values = np.where(unknown, 0.0, np.clip(standard, -_FURTHEST, _FURTHEST))
        inputs = np.concatenate([values, unknown[:, list(self.missing)]], axis=1).astype(np.float32)
        codes = np.zeros(buckets.shape, dtype=np.int64)
        for at, (kept, also) in enumerate(zip(self.kept, self.missing_kept, strict=True)):
            table = np.zeros(BUCKETS + 1, dtype=np.int64)  # the last place is that of -1
            table[list(kept)] = np.arange(1, 1 + len(kept))
            table[BUCKETS] = 1 + len(kept) if also else 0
            codes[:, at] = table[buckets[:, at]]
        return Rows(inputs, codes, bad.astype(np.float32))
