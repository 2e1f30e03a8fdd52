"""From log-odds to points and back.

Points are ``offset + factor * logit`` with logit the log-odds of *good* against bad, so that points grow with safety
and double-odds steps are ``pdo`` points apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedcredit.errors import DataError, SpecError

__all__ = [
    "IntegerPoints",
    "PointScale",
    "Points",
    "integer_points",
    "logit_of_points",
    "points_of_logit",
    "probability_of_bad",
    "split_points",
    "total_points",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PointScale:
    """The scale of a scorecard.

    Args:
        base_score: Points at ``base_odds``.
        base_odds: Goods to one bad at the base score, > 0.
        pdo: Points that double the odds, > 0.

    Raises:
        SpecError: A value is out of its range.
    """

    base_score: float
    base_odds: float
    pdo: float

    def __post_init__(self) -> None:
        for key in ("base_odds", "pdo"):
            if not 0.0 < getattr(self, key) < math.inf:
                raise SpecError("spec.scale", f"scorecard.{key} is {getattr(self, key)}; it must be above 0")
        if not math.isfinite(self.base_score):
            raise SpecError("spec.scale", f"scorecard.base_score is {self.base_score}; it must be a number")

    @property
    def factor(self) -> float:
        """Points for one unit of logit, pdo / ln 2."""
        return self.pdo / math.log(2.0)

    @property
    def offset(self) -> float:
        """Points at even odds, base_score - factor * ln(base_odds)."""
        return self.base_score - self.factor * math.log(self.base_odds)


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a scorecard before rounding.

    Args:
        base: What everyone starts with (0 if it was spread over the features).
        bins: For each feature float64 (bins,), what each bin adds.
    """

    base: float
    bins: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class IntegerPoints:
    """Points of a scorecard as integers.

    Args:
        base: What everyone starts with.
        bins: For each feature int64 (bins,), what each bin adds.
    """

    base: int
    bins: tuple[Ints, ...]


def split_points(
    scale: PointScale,
    intercept: float,
    coefficients: ArrayLike,
    tables: Sequence[ArrayLike],
    *,
    spread: bool = False,
) -> Points:
    """Points of every bin, such that a row's base and bins sum to the points of its logit.

    Proof. A row in bin b_f of feature f has ``logit = a + sum_f c_f w_f[b_f]``. Here ``base = offset + factor * a`` and
    ``bins_f[b] = factor * c_f * w_f[b]``, hence ``base + sum_f bins_f[b_f] = offset + factor * (a + sum_f c_f
    w_f[b_f]) = offset + factor * logit``. With ``spread`` the base is divided into k equal parts, one added to every
    bin of each of the k features; a row is in exactly one bin of each, so it gets base * k / k: the same sum. In
    floating point each side is a sum of k + 1 terms, so they differ by at most about k * 2^-52 of the sum of the terms'
    sizes: below 1e-9 of logit for any scorecard whose terms sum to less than 10^5.

    Without ``spread`` (the default) a bin of WOE 0 gets 0 points: what it adds or takes is read against the average.

    Args:
        scale: The scale.
        intercept: Of the log-odds of good against bad.
        coefficients: (k,), of WOE; positive ones reward safer bins.
        tables: For each feature its WOE by bin (bins,).
        spread: Divide the base equally over the features, so that the sheet needs no base row.

    Raises:
        DataError: Numbers of coefficients and tables differ, a table is empty, a value is not finite, or there is no
            feature to spread over.

    Source: Siddiqi, "Credit Risk Scorecards" (2006), ch. 6, "Scaling".
    """
    slopes = np.asarray(coefficients, dtype=np.float64)
    woe = [np.asarray(table, dtype=np.float64) for table in tables]
    if slopes.shape != (len(woe),):
        raise DataError("points.shape", f"{slopes.shape} coefficients and {len(woe)} tables; each feature needs both")
    if any(table.ndim != 1 or table.size == 0 or not np.isfinite(table).all() for table in woe):
        raise DataError("points.table", "a table of WOE is empty or has a value that is no finite number")
    if not (math.isfinite(intercept) and np.isfinite(slopes).all()):
        raise DataError("points.coefficient", "the intercept or a coefficient is no finite number")
    base = scale.offset + scale.factor * intercept
    bins = [scale.factor * slope * table for slope, table in zip(slopes.tolist(), woe, strict=True)]
    if not spread:
        return Points(base, tuple(bins))
    if not bins:
        raise DataError("points.spread", "there is no feature to spread the base over; ask for a base row")
    return Points(0.0, tuple(part + base / len(bins) for part in bins))


def integer_points(points: Points) -> IntegerPoints:
    """Round the base and every bin to the nearest integer (halves to even).

    A row's total moves by at most (k + 1) / 2 points over k features, and by sqrt((k + 1) / 12) typically.

    Args:
        points: Points before rounding.
    """
    return IntegerPoints(round(points.base), tuple(np.rint(table).astype(np.int64) for table in points.bins))


def total_points(points: Points | IntegerPoints, codes: Sequence[NDArray[np.integer]]) -> Floats | Ints:
    """Points of each row.

    Args:
        points: The scorecard; integer tables give integer totals.
        codes: For each feature the rows' bins (n,), each within its table.

    Returns:
        (n,) float64 or int64.

    Raises:
        DataError: There is no feature, their number differs from the scorecard's, or a code is outside its table.
    """
    if not codes or len(codes) != len(points.bins):
        raise DataError("points.codes", f"{len(codes)} columns of codes and {len(points.bins)} tables; they must match")
    parts = []
    for place, (table, rows) in enumerate(zip(points.bins, codes, strict=True)):
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < table.size:
            raise DataError("points.code", f"feature {place} has a code outside its {table.size} bins")
        parts.append(table[rows])
    total: Floats | Ints = np.sum(parts, axis=0) + points.base
    return total


def logit_of_points(scale: PointScale, points: ArrayLike) -> Floats:
    """Log-odds of good against bad of each number of points.

    Args:
        scale: The scale.
        points: Any shape.
    """
    logit: Floats = (np.asarray(points, dtype=np.float64) - scale.offset) / scale.factor
    return logit


def points_of_logit(scale: PointScale, logit: ArrayLike) -> Ints:
    """Whole points of log-odds of good against bad, to the nearest.

    Args:
        scale: The scale.
        logit: Any shape.
    """
    return np.rint(scale.offset + scale.factor * np.asarray(logit, dtype=np.float64)).astype(np.int64)


def probability_of_bad(scale: PointScale, points: ArrayLike) -> Floats:
    """Probability of default of each number of points, (0, 1), falling in the points.

    Args:
        scale: The scale.
        points: Any shape.
    """
    probability: Floats = special.expit(-logit_of_points(scale, points))
    return probability
