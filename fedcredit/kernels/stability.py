"""Population stability: has the mix of a feature or of the score moved since the model was made?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError

__all__ = ["MOVED", "MOVING", "Level", "StabilityTable", "population_stability", "stability_table"]

MOVING: Final = 0.1
"""Index from which a population counts as moving and is watched."""

MOVED: Final = 0.25
"""Index from which a population counts as moved and the model is reviewed."""

_HALF_ROW: Final = 0.5  # stands for the missing mass of an empty bin, so that a bin that died does not read infinity

Level = Literal["stable", "moving", "moved"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StabilityTable:
    """How each bin's share moved.

    Args:
        expected_share: float64 (bins,), shares at the time of fitting, sum 1.
        actual_share: float64 (bins,), shares now, sum 1.
        contribution: float64 (bins,), each bin's part of the index, >= 0.
        index: Their sum.
        level: Reading of the index by the customary limits 0.1 and 0.25.
    """

    expected_share: Floats
    actual_share: Floats
    contribution: Floats
    index: float
    level: Level


def _shares(counts: ArrayLike, name: str) -> Floats:
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise DataError("kernels.counts", f"{name} counts must be one non-empty vector of counts, not all 0")
    filled = np.where(values == 0, _HALF_ROW, values)
    shares: Floats = filled / filled.sum()
    return shares


def stability_table(expected_counts: ArrayLike, actual_counts: ArrayLike) -> StabilityTable:
    """Compare two distributions over the same bins.

    An empty bin counts as half a row, on either side. The index is the sum of (actual - expected) x
    ln(actual / expected) over the shares: the same divergence as information value, with time in place of default.

    Args:
        expected_counts: Rows or weight in each bin when the model was fitted (bins,), >= 0, not all 0.
        actual_counts: The same now (bins,).

    Raises:
        DataError: The vectors differ in length, are empty, all 0, negative or not finite.

    Source: Lewis, "An Introduction to Credit Scoring" (1994), for the limits; Yurdakul & Naranjo, "Statistical
    properties of the population stability index", J. Risk Model Validation 14(4), 2020.
    """
    expected, actual = _shares(expected_counts, "expected"), _shares(actual_counts, "actual")
    if expected.size != actual.size:
        raise DataError("kernels.counts", f"{expected.size} expected and {actual.size} actual bins; they must be equal")
    contribution: Floats = (actual - expected) * np.log(actual / expected)
    index = float(contribution.sum())
    level: Level = "stable" if index < MOVING else "moving" if index < MOVED else "moved"
    return StabilityTable(expected, actual, contribution, index, level)


def population_stability(expected_counts: ArrayLike, actual_counts: ArrayLike) -> float:
    """The index of :func:`stability_table` alone, >= 0; 0 when the mix has not moved.

    Args:
        expected_counts: Rows or weight in each bin when the model was fitted (bins,), >= 0, not all 0.
        actual_counts: The same now (bins,).

    Raises:
        DataError: The vectors differ in length, are empty, all 0, negative or not finite.
    """
    return stability_table(expected_counts, actual_counts).index
