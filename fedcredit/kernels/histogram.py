"""Sums of integer derivatives by bin: exact, hence the same in any order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.compiled import compiled

__all__ = ["bin_offsets", "histogram"]

Codes = NDArray[np.unsignedinteger[Any]]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32] | NDArray[np.int64]


def bin_offsets(bins: Sequence[int]) -> Ints:
    """Place of each feature's bin 0 where all bins stand in one long row: int64 (F,).

    Args:
        bins: (F,), number of bins of each feature.
    """
    ends = np.cumsum(np.asarray(bins, dtype=np.int64), dtype=np.int64)
    return np.concatenate((np.zeros(1, dtype=np.int64), ends))[:-1]


@compiled
def _add(codes: Codes, offsets: Ints, rows: Rows, pairs: Ints, sums: Ints) -> None:
    for feature in range(codes.shape[0]):
        column, start = codes[feature], offsets[feature]
        for place in range(rows.size):
            at = start + column[rows[place]]
            sums[at, 0] += pairs[place, 0]
            sums[at, 1] += pairs[place, 1]


@compiled
def _gather(rows: Rows, g: Ints, h: Ints, pairs: Ints) -> None:
    for place in range(rows.size):
        pairs[place, 0] = g[rows[place]]
        pairs[place, 1] = h[rows[place]]


def histogram(codes: Codes, offsets: Ints, total_bins: int, rows: Rows, g: Ints, h: Ints) -> Ints:
    """Sums of g and of h over the given rows, by feature and bin.

    Args:
        codes: (F, n), bin of each row, one feature after the other in memory; each within its feature's bins.
        offsets: int64 (F,), place of each feature's bin 0 among all bins.
        total_bins: Number of bins of all features.
        rows: Indices of the rows that count.
        g: int64 (n,).
        h: int64 (n,).

    Returns:
        int64 (2, total_bins): sums of g, sums of h.

    Raises:
        DataError: The codes are not C-contiguous, or sizes differ.
    """
    if not codes.flags.c_contiguous or codes.ndim != 2 or len(codes) != len(offsets):
        raise DataError("kernels.tree-codes", f"codes {codes.shape} must be contiguous, one row a feature")
    if g.shape != (codes.shape[1],) or h.shape != g.shape:
        raise DataError("kernels.tree-codes", f"codes of {codes.shape[1]} rows and gradients {g.shape}, {h.shape}")
    sums = np.zeros((total_bins, 2), dtype=np.int64)
    if len(codes) and rows.size:
        pairs = np.empty((rows.size, 2), dtype=np.int64)
        _gather(rows, g, h, pairs)
        _add(codes, offsets, rows, pairs, sums)
    return np.ascontiguousarray(sums.T)
