"""Real numbers as integers that add up exactly: fixed point with a clip and a proof that no sum wraps.

Parameters: scale 2^s. A value x becomes ``round(clip(x, -c, c) * 2^s)``, half to even, at most ``bound =
ceil(c * 2^s)`` in absolute value. The total of n such values is at most ``n * bound``; with ``n * bound <
2^(k-1)`` it is exact modulo 2^k, in two's complement, and nothing wraps (`check_no_overflow`).

Error: rounding moves each value by at most half a unit, so a total of n values by at most n/2 units of 2^-s, provided
that no value was clipped and that ``|x| * 2^s < 2^52`` (scaling by a power of two is exact in binary floating point,
and below 2^52 a float64 tells halves apart).

Source: docs/adr/0013-secure-sum.md; IEEE 754-2019, section 4.3.1 (rounding to nearest, ties to even).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, DataError

__all__ = ["check_no_overflow", "fixed_bound", "from_fixed", "to_fixed"]

_MOST_SCALE = 52
_EXACT = 1 << 52


def fixed_bound(scale_bits: int, clip: float) -> int:
    """Largest absolute integer a clipped value can become.

    Args:
        scale_bits: s, in [0, 52].
        clip: c, positive and finite.

    Raises:
        BoundError: out of range, or values would reach 2^52, where rounding is no longer to the nearest unit.
    """
    if not (0 <= scale_bits <= _MOST_SCALE and math.isfinite(clip) and clip > 0):
        raise BoundError(
            "fixed.scale",
            f"scale 2^{scale_bits} and clip {clip}; 0 to {_MOST_SCALE} bits and a positive clip are needed",
        )
    bound = math.ceil(math.ldexp(clip, scale_bits))
    if not 1 <= bound < _EXACT:
        raise BoundError(
            "fixed.bound", f"clip {clip} at scale 2^{scale_bits} gives values up to {bound}, not below 2^52"
        )
    return bound


def to_fixed(values: NDArray[np.float64], scale_bits: int, clip: float, what: str = "values") -> NDArray[np.int64]:
    """Real numbers in fixed point, clipped.

    Args:
        values: float64, any shape, finite.
        scale_bits: s.
        clip: c; larger absolute values become c.
        what: Name of the values, for the error's text.

    Returns:
        int64 of the same shape, each at most ``fixed_bound(scale_bits, clip)`` in absolute value.

    Raises:
        DataError: a value is infinite or not a number; the text says where, not what.
        BoundError: as `fixed_bound`.
    """
    bound = fixed_bound(scale_bits, clip)
    finite = np.isfinite(values)
    if not bool(finite.all()):
        first = int(np.flatnonzero(~finite.reshape(-1))[0])
        raise DataError(
            "fixed.not-finite", f"{what}: {int((~finite).sum())} of {finite.size} are not finite, first number {first}"
        )
    scaled = np.rint(np.ldexp(np.clip(values, -clip, clip), scale_bits))
    return np.clip(scaled, -bound, bound).astype(np.int64)


def from_fixed(total: NDArray[np.int64], scale_bits: int) -> NDArray[np.float64]:
    """A total of fixed-point values as real numbers: float64 of the same shape, exact while below 2^53."""
    if not 0 <= scale_bits <= _MOST_SCALE:
        raise BoundError("fixed.scale", f"scale 2^{scale_bits}; 0 to {_MOST_SCALE} bits are possible")
    return np.ldexp(total.astype(np.float64), -scale_bits)


def check_no_overflow(members: int, bound: int, bits: int) -> None:
    """Proves that a total of ``members`` values within ``bound`` is exact modulo ``2^bits``.

    Raises:
        BoundError: it may wrap.
    """
    if not (members >= 1 and bound >= 1 and members * bound < 1 << (bits - 1)):
        raise BoundError("fixed.overflow", f"{members} values within {bound} may pass {bits - 1} bits and a sign")
