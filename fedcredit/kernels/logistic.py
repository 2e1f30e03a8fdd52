"""Logistic regression by Newton's method on pooled rows: the oracle of the joint fit, and the label holder's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from fedcredit.errors import DataError

__all__ = ["LogisticFit", "Wald", "fit_logistic", "wald"]

Floats = NDArray[np.float64]

_SINGULAR: Final = 1e-12  # least eigenvalue of the scaled information that double precision still tells from 0
_SETTLED: Final = 1e-3  # a last step that still moves a logit by more than this is running off to infinity
_ARRIVED: Final = 1e-10  # Newton decrement at which a maximum, if there is one, is 1e-5 standard errors away
_HALVINGS: Final = 30


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A fitted model of P(y = 1).

    Args:
        intercept: Log-odds of y = 1 where all features are 0.
        coefficients: float64 (k,).
        covariance: float64 (k+1, k+1), intercept first: inverse of the (ridge-penalised) information.
        log_likelihood: Weighted, without the ridge penalty, <= 0.
        iterations: Newton steps taken.
        converged: Whether the last step was within tolerance.
    """

    intercept: float
    coefficients: Floats
    covariance: Floats
    log_likelihood: float
    iterations: int
    converged: bool

    def logit(self, X: ArrayLike) -> Floats:
        """Log-odds of y = 1 of rows (n, k); float64 (n,)."""
        result: Floats = np.asarray(X, dtype=np.float64) @ self.coefficients + self.intercept
        return result


@dataclass(frozen=True, eq=False)
class Wald:
    """Wald tests of each parameter against 0; arrays (k+1,), intercept first.

    Args:
        standard_errors: float64, > 0.
        z: float64, estimate over standard error.
        p: float64 in [0, 1], two-sided.
    """

    standard_errors: Floats
    z: Floats
    p: Floats


@dataclass(frozen=True, eq=False)
class _Problem:
    design: Floats  # (n, k+1), first column 1
    y: Floats
    weights: Floats
    penalty: Floats  # (k+1,), 0 for the intercept

    def likelihood(self, beta: Floats) -> float:
        eta = self.design @ beta
        return float(self.weights @ (self.y * eta - np.logaddexp(0.0, eta)))

    def objective(self, beta: Floats) -> float:
        return self.likelihood(beta) - 0.5 * float(self.penalty @ beta**2)

    def gradient_and_information(self, beta: Floats) -> tuple[Floats, Floats]:
        probability = special.expit(self.design @ beta)
        gradient: Floats = self.design.T @ (self.weights * (self.y - probability)) - self.penalty * beta
        curvature = self.weights * probability * (1.0 - probability)
        information: Floats = (self.design * curvature[:, None]).T @ self.design + np.diag(self.penalty)
        return gradient, information


def _checked(X: ArrayLike, y: ArrayLike, weights: ArrayLike | None, ridge: float) -> _Problem:
    rows, labels = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or labels.size == 0:
        raise DataError("logistic.shape", f"X {rows.shape} and y {labels.shape} must be (n, k) and (n,) with n > 0")
    w = np.ones_like(labels) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != labels.shape or not np.isfinite(w).all() or (w < 0).any():
        raise DataError("logistic.weights", f"weights {w.shape} must be {labels.shape}, finite and not negative")
    if not np.isfinite(rows).all():
        raise DataError("logistic.value", "X has a value that is no finite number; give missing values a bin first")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DataError("logistic.label", "y has a value other than 0 (good) and 1 (bad)")
    if not (0.0 <= ridge < np.inf):
        raise DataError("logistic.ridge", f"ridge is {ridge}; it must be a finite number of at least 0")
    if not 0.0 < float(w @ labels) < float(w.sum()):
        raise DataError("logistic.class", "the weighted rows are all good or all bad; a fit needs both")
    penalty = np.full(rows.shape[1] + 1, ridge)
    penalty[0] = 0.0
    return _Problem(np.column_stack((np.ones(labels.size), rows)), labels, w, penalty)


def _inverse(information: Floats) -> Floats | None:
    """Inverse of a symmetric matrix, None if it is singular in double precision."""
    scale = np.sqrt(np.diag(information))
    if not np.isfinite(information).all() or float(scale.min()) == 0.0:
        return None
    values, vectors = linalg.eigh(information / np.outer(scale, scale))
    if float(values[0]) < _SINGULAR:
        return None
    result: Floats = (vectors / values) @ vectors.T / np.outer(scale, scale)
    return result


def _separated() -> DataError:
    return DataError(
        "logistic.separable",
        "the features tell all goods from all bads of some group, so the likelihood has no maximum; set ridge > 0, "
        "merge the bin that holds one class only, or drop its feature",
    )


def fit_logistic(
    X: ArrayLike,
    y: ArrayLike,
    *,
    ridge: float = 0.0,
    weights: ArrayLike | None = None,
    max_iterations: int = 50,
    tolerance: float = 1e-10,
) -> LogisticFit:
    """Maximum-likelihood (or ridge) logistic regression of P(y = 1) with an intercept.

    Newton's method with step halving. Maximises ``sum_i w_i log P(y_i) - ridge / 2 * |coefficients|^2``; the intercept
    is not penalised. It ends when the Newton decrement (the squared distance to the optimum in standard errors) is
    within ``tolerance`` and then takes that last step, so the result is far closer than the tolerance.

    Args:
        X: (n, k) finite features; k = 0 fits the intercept alone.
        y: 0/1 (n,).
        ridge: >= 0, on the scale of the summed log-likelihood (``1 / C`` of scikit-learn).
        weights: (n,) >= 0, counted like repeated rows.
        max_iterations: Most Newton steps; after them the fit is returned with ``converged`` false.
        tolerance: Of the decrement, > 0.

    Raises:
        DataError: Input is malformed (``logistic.shape``, ``.weights``, ``.value``, ``.label``, ``.ridge``,
            ``.class``), features are linearly dependent (``logistic.singular``), or they separate the classes so that
            no maximum exists (``logistic.separable``). Any ridge > 0 rules the last two out.

    Source: Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", 2nd ed., 4.4.1; Albert & Anderson,
    Biometrika 71 (1984), on when a maximum exists.
    """
    problem = _checked(X, y, weights, ridge)
    beta = np.zeros(problem.design.shape[1])
    share = float(problem.weights @ problem.y) / float(problem.weights.sum())
    beta[0] = special.logit(share)
    objective = problem.objective(beta)
    converged, arrived, steps = False, False, 0
    while not converged and steps < max_iterations:
        gradient, information = problem.gradient_and_information(beta)
        inverse = _inverse(information)
        if inverse is None and steps == 0:
            raise DataError(
                "logistic.singular",
                "the features (with the intercept) are linearly dependent; drop the dependent ones or set ridge > 0",
            )
        if inverse is None:
            raise _separated()
        step = inverse @ gradient
        decrement = float(gradient @ step)
        # Only rows that count may say how far the step moves: others can have any features.
        still = float(np.abs((problem.design @ step)[problem.weights > 0]).max()) <= _SETTLED
        if arrived and not still:
            # So near a maximum a step squares the distance; only a likelihood without one keeps the logits moving.
            raise _separated()
        arrived = decrement <= _ARRIVED
        beta, objective = _climb(problem, beta, step, objective)
        converged = decrement <= tolerance and still
        steps += 1
    covariance = _inverse(problem.gradient_and_information(beta)[1])
    if covariance is None:
        raise _separated()
    return LogisticFit(float(beta[0]), beta[1:], covariance, problem.likelihood(beta), steps, converged)


def _climb(problem: _Problem, beta: Floats, step: Floats, objective: float) -> tuple[Floats, float]:
    """Take the step, halved until the objective does not fall (beyond what rounding may do to a sum of n terms)."""
    slack = 1e-12 * (1.0 + abs(objective))
    for _ in range(_HALVINGS):
        trial = beta + step
        reached = problem.objective(trial)
        if reached >= objective - slack:
            return trial, reached
        step = step / 2.0
    return beta, objective


def wald(fit: LogisticFit) -> Wald:
    """Standard errors, z values and two-sided p values of a fit, intercept first.

    With a ridge they describe the penalised estimate and are too small as frequentist errors.

    Args:
        fit: A fit with covariance (k+1, k+1).
    """
    errors: Floats = np.sqrt(np.diag(fit.covariance))
    z: Floats = np.concatenate(([fit.intercept], fit.coefficients)) / errors
    return Wald(errors, z, special.erfc(np.abs(z) / np.sqrt(2.0)))
