"""A holder's noise on its sums: integers with a bound that is proven and a deviation that is known exactly.

The sum of 12 independent uniform integers in [-a, a]: mean 0, variance ``12 a (a + 1) / 3 = 4 a (a + 1)``, bounded by
12 a, near normal. Its tails are no heavier than a normal law's of the same variance: beyond t deviations lies at most
``2 exp(-t^2 / 2)``, which is 3 * 10^-14 at 8. (With N = 2a + 1 a part has the moment generating function
``sinh(N x) / (N sinh x)``, x = t/2. The slope of its logarithm is N L(N x) - L(x), L the Langevin function, and that is
at most ``(N^2 - 1) x / 3``, because L(y) <= y/3 and L'(y) <= 1/3.)

The bound makes room in a packed sum, so that noise of one field never reaches another: a normal law has none.

Source: Arbel, Marchal & Nguyen, ESAIM: P&S 24 (2020) (strict sub-Gaussianity); Chernoff's bound.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SeedStream, uniform_words
from fedcredit.errors import BoundError

__all__ = ["bounded_noise", "exact_sd", "noise_bound"]

_PARTS = 12
_LARGEST_PART = (1 << 31) - 1  # so that a part is one 32-bit word


def bounded_noise(seed: bytes, label: str, sd: float, count: int) -> NDArray[np.int64]:
    """Noise from a seed, the same for the same seed, label and deviation.

    Args:
        seed: 32 secret bytes, kept for the auditor.
        label: One use of the seed; two vectors of noise under one label are the same vector.
        sd: Standard deviation wanted, in integer units; `exact_sd` is what comes out, never less. 0 = no noise.
        count: Number of values.

    Returns:
        int64 (count,), mean 0, absolute values up to `noise_bound`.

    Raises:
        BoundError: a seed of another length, or a deviation that is no number or too large.
    """
    half = _half_width(sd)
    if half == 0:
        return np.zeros(count, dtype=np.int64)
    # The deviation is part of the label: noise of two widths from the same words would show the difference of sums.
    stream = SeedStream(seed, f"noise/{half}/{label}")
    words = uniform_words(stream.take, 2 * half + 1, _PARTS * count).astype(np.int64) - half
    total: NDArray[np.int64] = words.reshape(count, _PARTS).sum(axis=1)
    return total


def noise_bound(sd: float) -> int:
    """Largest absolute value of noise of this deviation: the ``slack`` of its field.

    Raises:
        BoundError: no deviation, or one too large.
    """
    return _PARTS * _half_width(sd)


def exact_sd(sd: float) -> float:
    """Standard deviation that noise made for ``sd`` really has: the next one possible, less than 3 above it.

    Raises:
        BoundError: no deviation, or one too large.
    """
    half = _half_width(sd)
    return 2.0 * math.sqrt(half * (half + 1))


def _half_width(sd: float) -> int:
    """The smallest a with ``4 a (a + 1) >= sd^2``."""
    if not (math.isfinite(sd) and sd >= 0):
        raise BoundError("noise.sd", f"a standard deviation of {sd} was asked for, a number from 0 up is needed")
    half = max(0, int((math.sqrt(1.0 + sd * sd) - 1.0) / 2.0) - 1)
    while 4 * half * (half + 1) < sd * sd:
        half += 1
    if half > _LARGEST_PART:
        raise BoundError("noise.sd", f"a standard deviation of {sd} was asked for, at most 2^32 is possible")
    return half
