"""Derivatives of the logistic loss, and their integer forms, whose sums are exact in any order.

Source: Shi et al., "Quantized Training of Gradient Boosting Decision Trees", NeurIPS 2022 (stochastic rounding).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, DataError
from fedcredit.kernels.compiled import compiled

__all__ = [
    "EXACT_BITS",
    "MAX_ROWS",
    "Quantised",
    "base_margin",
    "fixed_point",
    "gradient_bound",
    "logistic_gradients",
    "quantise",
]

EXACT_BITS: Final = 40
"""Binary digits after the point in :func:`fixed_point`."""
MAX_ROWS: Final = 1 << 22
"""Most rows of a run: sums of fixed-point gradients stay below 2^62."""
_MIN_BITS, _MAX_BITS = 2, 32

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# exp on [-ln 2 / 2, ln 2 / 2] by plain arithmetic: libraries differ in the last bit from processor to processor.
# Source: Sun Microsystems' fdlibm, e_exp.c (constants and method).
_LN2_HIGH, _LN2_LOW, _INVERSE_LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1.44269504088896338700
_P1, _P2, _P3 = 1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05
_P4, _P5 = -1.65339022054652515390e-06, 4.13813679705723846039e-08
_LEAST_EXPONENT = -708.0  # below it exp is not a normal number


@dataclass(frozen=True, eq=False)
class Quantised:
    """Derivatives as integers; what they stand for is the integer times its unit.

    Args:
        g: int64 (n,), first derivatives.
        h: int64 (n,), second derivatives, >= 0.
        g_unit: Value of one unit of g.
        h_unit: Value of one unit of h.
    """

    g: Ints
    h: Ints
    g_unit: float
    h_unit: float

    @property
    def bound(self) -> int:
        """Largest absolute integer."""
        return max(1, round(1.0 / self.g_unit))


@compiled
def _logistic(margin: Floats, bad: Bools, g: Floats, h: Floats) -> None:
    for row in range(margin.size):
        x = max(-abs(margin[row]), _LEAST_EXPONENT)
        k = np.floor(x * _INVERSE_LN2 + 0.5)
        high, low = x - k * _LN2_HIGH, k * _LN2_LOW
        r = high - low
        t = r * r
        c = r - t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5))))
        small = np.ldexp(1.0 - ((low - (r * c) / (2.0 - c)) - high), int(k))  # exp(-|margin|)
        p = (1.0 if margin[row] >= 0.0 else small) / (1.0 + small)
        rest = (small if margin[row] >= 0.0 else 1.0) / (1.0 + small)  # 1 - p, without cancellation
        g[row] = -rest if bad[row] else p
        h[row] = p * rest


def logistic_gradients(margin: Floats, bad: Bools) -> tuple[Floats, Floats]:
    """First and second derivative of the logistic loss by the margin: p - y and p (1 - p).

    The same bits on every machine: exp is computed by plain arithmetic.

    Args:
        margin: float64 (n,), log-odds of default, finite.
        bad: bool (n,), True = defaulted.

    Returns:
        g in [-1, 1] and h in [0, 1/4], float64 (n,) each.

    Raises:
        DataError: Shapes or types differ, or a margin is not finite.
    """
    if margin.dtype != np.float64 or bad.dtype != np.bool_ or margin.ndim != 1 or margin.shape != bad.shape:
        raise DataError("kernels.tree-margin", f"margins {margin.shape} and labels {bad.shape} must be equal vectors")
    if not np.isfinite(margin).all():
        raise DataError("kernels.tree-margin", "a margin is not finite; every row needs a number")
    g, h = np.empty_like(margin), np.empty_like(margin)
    _logistic(margin, bad, g, h)
    return g, h


def base_margin(bads: int, goods: int) -> float:
    """Log-odds ln(bads / goods), rounded correctly, so the same on every machine.

    Raises:
        DataError: One class is missing.
    """
    if bads < 1 or goods < 1:
        raise DataError("kernels.tree-classes", f"{bads} bads and {goods} goods; training needs both")
    with localcontext() as context:
        context.prec = 40
        return float((Decimal(bads) / Decimal(goods)).ln())


def gradient_bound(bits: int) -> int:
    """Largest absolute integer of derivatives in ``bits`` bits (one of them the sign), 2^(bits-1) - 1.

    Raises:
        BoundError: Fewer than 2 or more than 32 bits.
    """
    if not _MIN_BITS <= bits <= _MAX_BITS:
        raise BoundError("kernels.gradient-bits", f"{bits} gradient bits; give {_MIN_BITS} to {_MAX_BITS}")
    return (1 << (bits - 1)) - 1


def quantise(g: Floats, h: Floats, bits: int, uniforms: tuple[Floats, Floats]) -> Quantised:
    """Rounds derivatives to integers up or down by chance, so that their sums are unbiased.

    Args:
        g: float64 (n,), within [-1, 1].
        h: float64 (n,), within [0, 1/4].
        bits: Bits of an integer, sign included; Q = 2^(bits-1) - 1.
        uniforms: float64 (n,) each, in [0, 1): randomness for g and for h.

    Returns:
        Integers |g| <= Q and 0 <= h <= Q with units 1/Q and 1/(4Q).

    Raises:
        BoundError: ``bits`` is out of range, or there are too many rows.
    """
    bound = gradient_bound(bits)
    _check_rows(g.size)
    g_units = np.clip(np.floor(g * float(bound) + uniforms[0]), -bound, bound)
    h_units = np.clip(np.floor(h * (4.0 * bound) + uniforms[1]), 0, bound)
    return Quantised(g_units.astype(np.int64), h_units.astype(np.int64), 1.0 / bound, 0.25 / bound)


def fixed_point(g: Floats, h: Floats, bits: int = EXACT_BITS) -> Quantised:
    """Derivatives to the nearest 2^-bits; with 40 as good as exact. Their sums do not depend on the order of rows.

    Args:
        g: float64 (n,), within [-1, 1].
        h: float64 (n,), within [0, 1/4].
        bits: Binary digits after the point.

    Raises:
        BoundError: There are too many rows.
    """
    _check_rows(g.size)
    scale = float(1 << bits)
    return Quantised(np.rint(g * scale).astype(np.int64), np.rint(h * scale).astype(np.int64), 1 / scale, 1 / scale)


def _check_rows(rows: int) -> None:
    if rows > MAX_ROWS:
        raise BoundError("kernels.tree-rows", f"{rows} rows; sums are proven exact up to {MAX_ROWS}")
