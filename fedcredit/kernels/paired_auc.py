"""Whether two scores of the same rows differ in AUC by more than the luck of the draw of rows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError

__all__ = ["auc_difference"]

_LEAST: Final = 2  # rows of a class; below, there is no variance to speak of

Floats = NDArray[np.float64]


def auc_difference(y: ArrayLike, first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """AUC of the first score less that of the second, and the standard error of this difference.

    The rows are taken as a sample of their population. Both scores see the same rows, so what they have in common
    cancels: the error is far smaller than that of either AUC where the scores are alike.

    Args:
        y: (n,), 1 = bad, 0 = good.
        first: (n,), higher is riskier; ties count half.
        second: As above.

    Returns:
        The difference, -1 to 1, and its standard error, >= 0; 0 where both rank all rows alike.

    Raises:
        DataError: the vectors differ in length, or a class has fewer than 2 rows.

    Source: DeLong, DeLong & Clarke-Pearson (1988); midranks by Sun & Xu (2014).
    """
    labels = np.asarray(y) == 1
    scores = [np.asarray(one, dtype=np.float64) for one in (first, second)]
    if labels.ndim != 1 or any(one.shape != labels.shape for one in scores):
        raise DataError("kernels.metric-shape", "y and both scores must be vectors of one length")
    if min(int(labels.sum()), int((~labels).sum())) < _LEAST:
        raise DataError("kernels.metric-class", f"the measure needs at least {_LEAST} goods and {_LEAST} bads")
    (bads, goods), (others_bads, others_goods) = (_placements(labels, one) for one in scores)
    by_bad, by_good = bads - others_bads, goods - others_goods
    variance = by_bad.var(ddof=1) / by_bad.size + by_good.var(ddof=1) / by_good.size
    return float(by_bad.mean()), float(np.sqrt(variance))


def _placements(bad: NDArray[np.bool_], risk: Floats) -> tuple[Floats, Floats]:
    """For each bad the share of goods below it, for each good the share of bads above it."""
    goods, bads = int((~bad).sum()), int(bad.sum())
    among_all = _midranks(risk)
    below = (among_all[bad] - _midranks(risk[bad])) / goods
    above = 1.0 - (among_all[~bad] - _midranks(risk[~bad])) / bads
    return below, above


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return ranks
