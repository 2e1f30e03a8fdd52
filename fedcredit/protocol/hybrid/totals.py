"""Totals of real numbers over the banks of a pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, DataError
from fedcredit.protocol.pool import Pool

__all__ = ["FIXED_BITS", "LARGEST", "joined_matrix", "total_reals", "upper_half"]

Floats = NDArray[np.float64]

FIXED_BITS = 20
"""Real numbers are added in units of 2^-20: a total over b banks is off by at most b/2 units."""

LARGEST = 1 << 52
"""Largest absolute value of a bank in those units; above it, doubles could not tell units apart."""


async def total_reals(pool: Pool, what: str, values: Floats) -> Floats:
    """Totals of real numbers, exact sums of their roundings; the same floats at every bank.

    Args:
        pool: The banks.
        what: Name of the sum.
        values: float64 (m,), finite, below 2^32 in absolute value.

    Raises:
        DataError: a value is not finite.
        BoundError: a value is too large.
    """
    if not np.isfinite(values).all():
        raise DataError("hybrid.not-finite", f"{what}: a sum that the banks decide on is not finite at this bank")
    scaled = np.rint(np.ldexp(values, FIXED_BITS))
    if float(np.abs(scaled).max(initial=0.0)) > LARGEST:
        raise BoundError("hybrid.too-large", f"{what}: a sum that the banks decide on passes 2^32 at this bank")
    total = await pool.sum(what, scaled.astype(np.int64), LARGEST)
    return np.ldexp(total.astype(np.float64), -FIXED_BITS)


def upper_half(matrix: Floats) -> Floats:
    """The upper half of a symmetric matrix with its diagonal, row by row; float64 (k (k + 1) / 2,)."""
    return np.asarray(matrix[np.triu_indices(len(matrix))], dtype=np.float64)


def joined_matrix(half: Floats, size: int) -> Floats:
    """The symmetric matrix of an `upper_half`; float64 (size, size)."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = half
    return matrix + np.triu(matrix, 1).T
