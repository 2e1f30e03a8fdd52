"""Discriminant coefficients from moments: a logistic scorecard for which no value of a single row is needed.

If the columns are normal with equal covariance within goods and bads, the log-odds of good are linear in them, with
coefficients ``S_within^-1 (mean_good - mean_bad)``. All inputs are sums over rows.

Source: Fisher (1936); Efron, "The efficiency of logistic regression compared to normal discriminant analysis",
JASA 1975, eq. 1.3-1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError

__all__ = ["Moments", "discriminant"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over the training rows, all exact.

    Args:
        goods: Number of goods.
        bads: Number of bads.
        sums_good: float64 (k,), sum of each column over the goods.
        sums_bad: float64 (k,), sum of each column over the bads.
        products: float64 (k, k), sum over all rows of the products of two columns.
    """

    goods: int
    bads: int
    sums_good: Floats
    sums_bad: Floats
    products: Floats

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return self.goods + self.bads

    @property
    def mean(self) -> Floats:
        """float64 (k,), mean of each column."""
        return (self.sums_good + self.sums_bad) / self.rows

    @property
    def covariance(self) -> Floats:
        """float64 (k, k), covariance over all rows (divided by rows)."""
        mean = self.mean
        return self.products / self.rows - np.outer(mean, mean)


def discriminant(moments: Moments, ridge: float) -> Floats:
    """Coefficients of the log-odds of good.

    Args:
        moments: Sums over the training rows.
        ridge: Added to the diagonal of the within-class scatter; the penalty of a logistic fit on the same scale, >= 0.

    Returns:
        float64 (k + 1,): intercept first.

    Raises:
        DataError: there are no columns, or they are collinear and ``ridge`` is 0.
    """
    k = len(moments.sums_good)
    if k == 0:
        raise DataError("fit.no-columns", "no feature is left for the scorecard: lower min_iv or check the data")
    good, bad = moments.sums_good / moments.goods, moments.sums_bad / moments.bads
    scatter = moments.products - moments.goods * np.outer(good, good) - moments.bads * np.outer(bad, bad)
    within = (scatter + ridge * np.eye(k)) / max(1, moments.rows - 2)
    try:
        slopes = np.linalg.solve(within, good - bad)
    except np.linalg.LinAlgError as error:
        raise DataError("fit.collinear", "the WOE columns are collinear: set scorecard.ridge above 0") from error
    intercept = np.log(moments.goods / moments.bads) - 0.5 * float((good + bad) @ slopes)
    return np.concatenate([[intercept], slopes])
