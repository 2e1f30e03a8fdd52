"""Rows of bins that are too thin in one house, moved to a neighbour, where the bins themselves stay as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["join_thin"]

Ints = NDArray[np.int64]


def join_thin(counts: Ints, ordered: int, home: int, least: int) -> Ints:
    """Where the rows of each bin go, so that no bin keeps a few: each has none or ``least`` rows afterwards.

    Thin ordered bins join the next ones until they are enough, the last of which takes the rows; what is left at the
    end joins the last such group. A thin bin of a special code, of missing values or of a category goes where values
    without a bin go, and what is still thin after that to the largest bin. Fewer than ``least`` rows in all end in one
    bin.

    Args:
        counts: int64 (bins,), rows of each bin in this house.
        ordered: How many leading bins are in order of value; 0 for categories.
        home: Bin of values that have none of their own.
        least: Fewest rows of a bin that has any, at least 1.

    Returns:
        int64 (bins,), the bin that takes the rows of each.
    """
    goes = np.arange(len(counts), dtype=np.int64)
    waiting: list[int] = []
    last = None
    for place in range(ordered):
        waiting.append(place)
        if int(counts[waiting].sum()) >= least:
            goes[waiting] = last = place
            waiting = []
    if waiting:
        goes[waiting] = waiting[-1] if last is None else last
    loose = np.arange(ordered, len(counts))
    thin = loose[(counts[loose] > 0) & (counts[loose] < least)]
    goes[thin[thin != home]] = goes[home]
    held = np.bincount(goes, weights=counts, minlength=len(counts))
    largest = int(held.argmax())
    still = (held > 0) & (held < least)
    goes[still[goes]] = largest
    return goes
