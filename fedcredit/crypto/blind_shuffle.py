"""Uniformly random permutations from a source of secret bytes.

Source: sorting by random keys; Knuth, The Art of Computer Programming, volume 2, section 3.4.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy

__all__ = ["permutation", "undo"]


def permutation(count: int, entropy: Entropy) -> NDArray[np.int64]:
    """A permutation of [0, count), every one equally likely: the order of random 64-bit keys.

    Keys of which two are equal are drawn again as a whole, so that ties favour no order.
    """
    while True:
        keys = np.frombuffer(entropy.take(8 * count), dtype="<u8")
        order = np.argsort(keys, kind="stable").astype(np.int64)
        if not (np.diff(keys[order]) == 0).any():
            return order


def undo(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse: ``x[order][undo(order)]`` is ``x``."""
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order), dtype=np.int64)
    return inverse
