"""Which features say the same: correlation from integer moments, variance inflation, and a greedy selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError

__all__ = ["Dropped", "Selection", "correlation_from_moments", "select", "variance_inflation"]

Floats = NDArray[np.float64]

_NULL: Final = 1e-10  # eigenvalue of a correlation matrix below which columns are linearly dependent
_PART: Final = 1e-8  # squared weight in a null direction from which a column belongs to the dependence


@dataclass(frozen=True)
class Dropped:
    """Why a feature was left out.

    Args:
        feature: Its index.
        reason: ``"correlation"`` with a better feature, or ``"vif"``: the kept ones together say nearly the same.
        against: Index of the better feature it correlates with; for ``"vif"`` the one it correlates with most
            among those still in at that time, None if it was alone.
        value: Size of the correlation with ``against``, or the variance inflation factor (may be infinite).
        limit: What was allowed.
    """

    feature: int
    reason: Literal["correlation", "vif"]
    against: int | None
    value: float
    limit: float


@dataclass(frozen=True)
class Selection:
    """What :func:`select` decided.

    Args:
        kept: Indices in the order given.
        dropped: The others, in the order in which they were dropped.
    """

    kept: tuple[int, ...]
    dropped: tuple[Dropped, ...]


def correlation_from_moments(rows: int, sums: ArrayLike, products: ArrayLike) -> Floats:
    """Correlation matrix of integer columns from their sums and sums of products.

    Numerators and variances are formed in unbounded integers, so nothing cancels however large the means are; a column
    without variance has correlation 0 with every other.

    Args:
        rows: Number of rows (or total integer weight), >= 1.
        sums: Integers (k,), sum of each column.
        products: Integers (k, k) symmetric, sum of products of columns i and j (the Gram matrix).

    Returns:
        float64 (k, k), symmetric, diagonal 1, within [-1, 1].

    Raises:
        DataError: Shapes do not fit, values are no integers, the matrix is not symmetric, or the moments cannot come
            from real columns.
    """
    total, gram = np.asarray(sums), np.asarray(products)
    if total.ndim != 1 or gram.shape != (total.size, total.size) or rows < 1:
        raise DataError("collinearity.shape", f"sums {total.shape} and products {gram.shape} must be (k,) and (k, k)")
    if not all(a.dtype == np.object_ or np.issubdtype(a.dtype, np.integer) for a in (total, gram)):
        raise DataError("collinearity.type", f"sums ({total.dtype}) and products ({gram.dtype}) must be integers")
    exact, exact_gram = total.astype(np.object_), gram.astype(np.object_)
    if (exact_gram != exact_gram.T).any():
        raise DataError("collinearity.symmetry", "the matrix of sums of products is not symmetric")
    scaled = rows * exact_gram - np.outer(exact, exact)
    variance = np.diag(scaled)
    if (variance < 0).any() or (scaled * scaled > np.outer(variance, variance)).any():
        raise DataError("collinearity.moments", "sums and products contradict each other; no columns have them")
    spread = np.sqrt(np.array([float(v) for v in variance], dtype=np.float64))
    spread[spread == 0] = np.inf
    correlation: Floats = np.clip(scaled.astype(np.float64) / np.outer(spread, spread), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _square(correlation: ArrayLike) -> Floats:
    matrix = np.asarray(correlation, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError("collinearity.shape", f"a correlation matrix of shape {matrix.shape}; it must be (k, k)")
    if not np.isfinite(matrix).all() or np.abs(matrix - matrix.T).max(initial=0.0) > 1e-9:
        raise DataError("collinearity.symmetry", "a correlation matrix must be finite and symmetric")
    return (matrix + matrix.T) / 2.0


def variance_inflation(correlation: ArrayLike) -> Floats:
    """Variance inflation factor of each feature among all, 1 / (1 - R^2) of its regression on the others.

    This is the diagonal of the inverse. Where the matrix is singular the features that take part in a linear
    dependence get infinity and the others keep the value they have without it.

    Args:
        correlation: float (k, k), symmetric, diagonal 1.

    Returns:
        float64 (k,), each >= 1, possibly inf.

    Raises:
        DataError: The matrix is not square, finite and symmetric.

    Source: Belsley, Kuh & Welsch, "Regression Diagnostics" (1980), ch. 3.
    """
    matrix = _square(correlation)
    if matrix.size == 0:
        return np.zeros(0)
    values, vectors = np.linalg.eigh(matrix)
    null = values < _NULL
    parts = vectors**2
    factors: Floats = (parts[:, ~null] / values[~null]).sum(axis=1)
    factors = np.maximum(factors, 1.0)
    factors[parts[:, null].sum(axis=1) > _PART] = np.inf
    return factors


def select(correlation: ArrayLike, order: Sequence[int], max_correlation: float, max_vif: float) -> Selection:
    """Keep features that do not repeat better ones.

    First, in the given order, a feature is dropped when its absolute correlation with one already kept exceeds
    ``max_correlation`` (reported against the strongest such). Then, while any factor exceeds ``max_vif``, the feature
    with the largest is dropped and all are computed anew; of equal ones (within 1e-9) the later in the order goes.

    Args:
        correlation: float (k, k), symmetric, diagonal 1.
        order: Distinct indices, best first (by falling information value); features not listed take no part.
        max_correlation: In [0, 1]; 1 lets everything pass.
        max_vif: >= 1; infinity lets everything pass.

    Raises:
        DataError: The matrix is malformed, an index is repeated or out of range, or a limit is.
    """
    matrix = np.abs(_square(correlation))
    places = [int(place) for place in order]
    if len(set(places)) != len(places) or any(not 0 <= place < matrix.shape[0] for place in places):
        raise DataError("collinearity.order", f"order must list distinct indices below {matrix.shape[0]}")
    if not 0.0 <= max_correlation <= 1.0 or not max_vif >= 1.0:
        raise DataError("collinearity.limit", "max_correlation must be in [0, 1] and max_vif at least 1")
    kept: list[int] = []
    dropped: list[Dropped] = []
    for place in places:
        against = max(kept, key=lambda other: float(matrix[place, other]), default=None)
        if against is not None and matrix[place, against] > max_correlation:
            dropped.append(Dropped(place, "correlation", against, float(matrix[place, against]), max_correlation))
        else:
            kept.append(place)
    signed = np.asarray(correlation, dtype=np.float64)
    while len(kept) > 1:
        factors = variance_inflation(signed[np.ix_(kept, kept)])
        largest = float(factors.max())
        if not largest > max_vif:
            break
        worst = int(np.flatnonzero(factors >= largest * (1.0 - 1e-9))[-1])
        place = kept.pop(worst)
        against = max(kept, key=lambda other: float(matrix[place, other]))
        dropped.append(Dropped(place, "vif", against, largest, max_vif))
    return Selection(tuple(kept), tuple(dropped))
