"""Make probabilities mean what they say: prior shift, recalibration on held-out rows, reliability.

Every logit here is the log-odds of *bad*; a scorecard's logit, which is of good, goes in and out with its sign turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.logistic import fit_logistic, wald
from fedcredit.kernels.metrics import brier, calibration_curve

__all__ = ["Recalibration", "Reliability", "prior_offset", "prior_shift", "recalibrate", "reliability"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Z95: Final = 1.959963984540054  # two-sided 95 % point of the normal distribution


def prior_offset(sample_bad_rate: float, true_bad_rate: float) -> float:
    """What to add to the log-odds of bad of a model whose sample over- or under-represents bads.

    Sampling by class multiplies the odds of bad by the same number for every row, so ``logit(true) - logit(sample)``
    undoes it exactly when classes were sampled independently of the features. A sample balanced to 50 % from a
    population with 17.5 % needs -1.55.

    Args:
        sample_bad_rate: Share of bads in the rows that were fitted, (0, 1).
        true_bad_rate: Share of bads in the population, (0, 1).

    Raises:
        SpecError: A rate is outside (0, 1).

    Source: Prentice & Pyke, Biometrika 66 (1979); King & Zeng, Political Analysis 9 (2001), "prior correction".
    """
    for name, rate in (("sample", sample_bad_rate), ("true", true_bad_rate)):
        if not 0.0 < rate < 1.0:
            raise SpecError("spec.bad-rate", f"the {name} bad rate is {rate}; it must lie between 0 and 1")
    return float(special.logit(true_bad_rate) - special.logit(sample_bad_rate))


def prior_shift(logit: ArrayLike, sample_bad_rate: float, true_bad_rate: float) -> Floats:
    """Log-odds of bad moved from the sample's share of bads to the population's.

    Args:
        logit: Log-odds of *bad* under the sample, any shape.
        sample_bad_rate: Share of bads in the rows that were fitted, (0, 1).
        true_bad_rate: Share of bads in the population, (0, 1).

    Raises:
        SpecError: A rate is outside (0, 1).
    """
    shifted: Floats = np.asarray(logit, dtype=np.float64) + prior_offset(sample_bad_rate, true_bad_rate)
    return shifted


@dataclass(frozen=True)
class Recalibration:
    """The line that makes a logit calibrated, ``intercept + slope * logit``, both of bad.

    Args:
        intercept: 0 when the level was right.
        slope: 1 when the spread was right; below 1 the model was over-confident.
        intercept_error: Standard error of the intercept.
        slope_error: Standard error of the slope.
    """

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float

    def apply(self, logit: ArrayLike) -> Floats:
        """Recalibrated log-odds of bad, any shape."""
        result: Floats = self.intercept + self.slope * np.asarray(logit, dtype=np.float64)
        return result


def recalibrate(logit: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Recalibration:
    """Fit the recalibration line on rows the model has not seen.

    Args:
        logit: Log-odds of *bad* of held-out rows (n,), not all equal.
        y: 0/1 (n,), both present.
        weights: (n,) >= 0.

    Raises:
        DataError: As :func:`fedcredit.kernels.logistic.fit_logistic`.

    Source: Cox, Biometrika 45 (1958), "Two further applications of a model for binary regression"; Platt (1999).
    """
    column = np.asarray(logit, dtype=np.float64).reshape(-1, 1)
    fit = fit_logistic(column, y, weights=weights)
    if not fit.converged:
        raise DataError("calibration.unfinished", "the recalibration did not converge; look for extreme logits")
    errors = wald(fit).standard_errors
    return Recalibration(fit.intercept, float(fit.coefficients[0]), float(errors[0]), float(errors[1]))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Forecast against outcome, in groups of equal size by rising probability.

    Args:
        rows: int64 (groups,).
        bads: int64 (groups,).
        mean_probability: float64 (groups,), forecast.
        bad_rate: float64 (groups,), outcome.
        lower: float64 (groups,), lower end of the 95 % Wilson interval of the bad rate.
        upper: float64 (groups,), upper end.
        ece: Expected calibration error over these groups.
        brier: Brier score of the rows.
        ratio: Bads that came over bads forecast; 1 when the level is right.
    """

    rows: Ints
    bads: Ints
    mean_probability: Floats
    bad_rate: Floats
    lower: Floats
    upper: Floats
    ece: float
    brier: float
    ratio: float


def reliability(y: ArrayLike, probability: ArrayLike, groups: int = 10) -> Reliability:
    """Reliability table with intervals.

    Args:
        y: 0/1 (n,).
        probability: Of bad (n,), in [0, 1].
        groups: Most groups; equal probabilities stay together, see :func:`fedcredit.kernels.metrics.calibration_curve`.

    Raises:
        DataError: Shapes differ, y is not 0/1, or a probability is outside [0, 1].

    Source: Wilson, JASA 22 (1927), for the intervals; Murphy & Winkler (1977) for the table.
    """
    curve = calibration_curve(y, probability, groups)
    n, rate = curve.rows.astype(np.float64), curve.bad_rate
    shrunk = (rate + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * np.sqrt(rate * (1 - rate) / n + _Z95**2 / (4 * n**2)) / (1 + _Z95**2 / n)
    forecast = float((curve.mean_probability * n).sum())
    return Reliability(
        rows=curve.rows,
        bads=curve.bads,
        mean_probability=curve.mean_probability,
        bad_rate=rate,
        lower=np.maximum(shrunk - half, 0.0),
        upper=np.minimum(shrunk + half, 1.0),
        ece=float((np.abs(rate - curve.mean_probability) * n).sum() / n.sum()),
        brier=brier(y, probability),
        ratio=int(curve.bads.sum()) / forecast if forecast > 0 else math.inf,
    )
