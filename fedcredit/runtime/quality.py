"""How good a scorecard is on held-out rows, beside the label holder's own, the pooled one and the field's library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.calibration import prior_shift, recalibrate
from fedcredit.kernels.metrics import auc, brier, ece, gini, ks, log_loss
from fedcredit.kernels.points import PointScale, logit_of_points, probability_of_bad
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.scorecard.roles import LabelResult
from fedcredit.runtime.scorecard.oracle import Pooled, PooledResult
from fedcredit.spec.model import ScorecardSection

__all__ = ["HeldOut", "Reference", "calibration", "held_out", "measure", "reference"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows, scored.

    Args:
        ids: Their ids.
        bad: int64 (m,), 1 = defaulted.
        score: int64 (m,), points; higher is safer.
        probability: float64 (m,), of default, at the sample's or the stated true bad rate.
        sample_probability: float64 (m,), of default among rows sampled like the training rows.
        alone: int64 (m,), points of the label holder's own scorecard; None if it has no feature worth one.
    """

    ids: tuple[str, ...]
    bad: Ints
    score: Ints
    probability: Floats
    sample_probability: Floats
    alone: Ints | None


def held_out(result: LabelResult, rules: ScorecardSection, alone: Ints | None) -> HeldOut:
    """Scores and probabilities of the held-out rows."""
    scale = point_scale(rules)
    score = result.fitted.scores
    sample = np.asarray(probability_of_bad(scale, score), dtype=np.float64)
    probability = sample
    if rules.true_bad_rate is not None:
        rate = float(result.bad[result.index.train].mean())
        bad_logit = -np.asarray(logit_of_points(scale, score), dtype=np.float64)
        probability = np.exp(-np.logaddexp(0.0, -prior_shift(bad_logit, rate, rules.true_bad_rate)))
    ids = tuple(one for one, test in zip(result.index.ids, result.index.test, strict=True) if test)
    bad = result.bad[result.index.test].astype(np.int64)
    return HeldOut(ids, bad, score, probability, sample, alone)


def measure(bad: Ints, risk: Floats | Ints, probability: Floats | None = None) -> dict[str, float]:
    """Discrimination, and calibration where a probability is given."""
    found = {"auc": float(auc(bad, risk)), "ks": float(ks(bad, risk)), "gini": float(gini(bad, risk))}
    if probability is not None:
        found |= {
            "brier": float(brier(bad, probability)),
            "ece": float(ece(bad, probability)),
            "log_loss": float(log_loss(bad, probability)),
        }
    return found


def calibration(rows: HeldOut, rules: ScorecardSection) -> dict[str, Any]:
    """Line that would recalibrate the held-out rows: intercept 0 and slope 1 where nothing needs to be done."""
    logit = -np.asarray(logit_of_points(point_scale(rules), rows.score), dtype=np.float64)
    line = recalibrate(logit, rows.bad)
    return {
        "intercept": line.intercept,
        "intercept_error": line.intercept_error,
        "slope": line.slope,
        "slope_error": line.slope_error,
        "true_bad_rate": rules.true_bad_rate,
    }


@dataclass(frozen=True)
class Reference:
    """What the field's library makes of the pooled WOE columns.

    Args:
        risk: float64 (m,), log-odds of bad of the held-out rows.
        coefficients: float64 (k + 1,), log-odds of good on WOE, intercept first.
    """

    risk: Floats
    coefficients: Floats


def reference(pooled: Pooled, result: PooledResult) -> Reference | None:
    """scikit-learn's logistic regression, no penalty, on the kept WOE columns; None where it is not installed."""
    try:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - optional, for comparison only
    except ImportError:
        return None
    woe = result.woe.astype(np.float64) * WOE_UNIT
    train, test = woe[pooled.index.train], woe[pooled.index.test]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    model.fit(train, ~pooled.bad[pooled.index.train])
    coefficients = np.concatenate([model.intercept_, model.coef_[0]]).astype(np.float64)
    return Reference(-np.asarray(model.decision_function(test), dtype=np.float64), coefficients)


def point_scale(rules: ScorecardSection) -> PointScale:
    """The scale of section ``[scorecard]``."""
    return PointScale(base_score=rules.base_score, base_odds=rules.base_odds, pdo=rules.pdo)
