"""Steps of a fit from sums: against the library's optimum, never downhill, always a proper curvature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fedcredit.kernels.discriminant import Moments, discriminant
from fedcredit.kernels.newton import (
    WeightedSums,
    best_combination,
    penalised_likelihood,
    projected_information,
    secant_update,
)

Floats = NDArray[np.float64]


def sample(seed: int, rows: int = 500, columns: int = 3) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))
    logit = 1.0 + x @ rng.normal(size=columns) * 0.5
    return x, (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def moments_of(x: Floats, good: Floats) -> Moments:
    at = good > 0
    return Moments(int(at.sum()), int((~at).sum()), x[at].sum(axis=0), x[~at].sum(axis=0), x.T @ x)


def total_of(x: Floats, coefficients: Floats) -> Floats:
    return np.asarray(coefficients[0] + x @ coefficients[1:], dtype=np.float64)


def optimum(x: Floats, good: Floats) -> Floats:
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, good)
    return np.concatenate([model.intercept_, model.coef_[0]]).astype(np.float64)


def weighted(x: Floats, total: Floats) -> tuple[Floats, WeightedSums]:
    p = 1 / (1 + np.exp(-total))
    w = p * (1 - p)
    return w, WeightedSums(float(w.sum()), w @ x, w @ x**2)


def gradient(x: Floats, good: Floats, coefficients: Floats, ridge: float) -> Floats:
    residual = good - 1 / (1 + np.exp(-total_of(x, coefficients)))
    found = np.concatenate([[residual.sum()], x.T @ residual])
    found[1:] -= ridge * coefficients[1:]
    return np.asarray(found, dtype=np.float64)


def test_likelihood_against_the_textbook() -> None:
    x, good = sample(0)
    at = np.array([0.3, -0.2, 0.1, 0.4])
    p = 1 / (1 + np.exp(-total_of(x, at)))
    by_hand = float((good * np.log(p) + (1 - good) * np.log(1 - p)).sum()) - 0.5 * 2.0 * float(at[1:] @ at[1:])
    assert penalised_likelihood(total_of(x, at), good, at, 2.0) == pytest.approx(by_hand)


def test_likelihood_does_not_overflow() -> None:
    total = np.array([800.0, -800.0])
    assert penalised_likelihood(total, np.array([1.0, 0.0]), np.zeros(1), 0.0) == 0.0
    assert penalised_likelihood(total, np.array([0.0, 1.0]), np.zeros(1), 0.0) == -1600.0


@pytest.mark.parametrize("seed", range(3))
def test_best_combination_over_a_basis_is_the_optimum(seed: int) -> None:
    x, good = sample(seed)
    rng = np.random.default_rng(seed)
    known = [rng.normal(size=4) for _ in range(4)]  # with the constant they span every coefficient vector
    found, total = best_combination(known, [total_of(x, one) for one in known], good, 0.0)
    assert found == pytest.approx(optimum(x, good), abs=1e-5)
    assert total == pytest.approx(total_of(x, found), abs=1e-7)


@given(seed=st.integers(0, 10_000), points=st.integers(1, 4), ridge=st.sampled_from([0.0, 1.0, 50.0]))
@settings(max_examples=40, deadline=None)
def test_best_combination_never_goes_down(seed: int, points: int, ridge: float) -> None:
    x, good = sample(seed, rows=80)
    rng = np.random.default_rng(seed + 1)
    known = [rng.normal(size=4) * rng.choice([0.1, 1.0, 20.0]) for _ in range(points)]
    totals = [total_of(x, one) for one in known]
    found, total = best_combination(known, totals, good, ridge)
    newest = penalised_likelihood(totals[-1], good, known[-1], ridge)
    assert penalised_likelihood(total, good, found, ridge) >= newest - 1e-9 * abs(newest)
    assert np.isfinite(found).all()
    assert total == pytest.approx(total_of(x, found), abs=1e-6 * (1 + np.abs(total).max()))


def test_best_combination_keeps_the_newest_where_nothing_is_gained() -> None:
    x, good = sample(3)
    best = optimum(x, good)
    found, total = best_combination([best], [total_of(x, best)], good, 0.0)
    assert found is best
    assert np.array_equal(total, total_of(x, best))


def test_best_combination_holds_back_an_overshooting_total() -> None:
    x, good = sample(4)
    wild = 30 * optimum(x, good)
    found, _ = best_combination([wild], [total_of(x, wild)], good, 0.0)
    assert np.linalg.norm(found) < 0.2 * np.linalg.norm(wild)


@given(seed=st.integers(0, 10_000), columns=st.integers(1, 6), ridge=st.sampled_from([0.01, 1.0]))
@settings(max_examples=40, deadline=None)
def test_projected_information_is_positive_definite_with_exact_margins(seed: int, columns: int, ridge: float) -> None:
    x, good = sample(seed, rows=120, columns=columns)
    at = np.random.default_rng(seed).normal(size=columns + 1)
    total = total_of(x, at)
    w, sums = weighted(x, total)
    found = projected_information(moments_of(x, good), at, total, sums, ridge)
    assert np.array_equal(found, found.T) or np.allclose(found, found.T, rtol=1e-12)
    assert np.linalg.eigvalsh((found + found.T) / 2).min() > 0
    assert found[0, 0] == pytest.approx(w.sum())
    assert found[0, 1:] == pytest.approx(w @ x)
    assert np.diag(found)[1:] == pytest.approx(w @ x**2 + ridge, rel=1e-9)


def test_projected_information_is_exact_for_one_column() -> None:
    x, good = sample(5, columns=1)
    at = np.array([0.4, 0.8])
    w, sums = weighted(x, total_of(x, at))
    full = np.column_stack([np.ones(len(x)), x])
    found = projected_information(moments_of(x, good), at, total_of(x, at), sums, 0.0)
    assert found == pytest.approx(full.T @ (full * w[:, None]))


def test_projected_information_is_near_the_true_one_for_normal_columns() -> None:
    x, good = sample(6, rows=20_000)
    at = optimum(x, good)
    w, sums = weighted(x, total_of(x, at))
    full = np.column_stack([np.ones(len(x)), x])
    true = full.T @ (full * w[:, None])
    found = projected_information(moments_of(x, good), at, total_of(x, at), sums, 0.0)
    assert np.abs(found - true).max() < 0.02 * np.abs(true).max()


def test_projected_information_at_no_slope_is_the_flat_one() -> None:
    x, good = sample(7)
    at = np.array([0.5, 0.0, 0.0, 0.0])
    w, sums = weighted(x, total_of(x, at))
    full = np.column_stack([np.ones(len(x)), x])
    found = projected_information(moments_of(x, good), at, total_of(x, at), sums, 0.0)
    assert found == pytest.approx(w[0] * full.T @ full)


def test_a_newton_step_from_the_discriminant_nears_the_optimum() -> None:
    x, good = sample(8, rows=4000)
    best = optimum(x, good)
    start = discriminant(moments_of(x, good), 0.0)
    _, sums = weighted(x, total_of(x, start))
    information = projected_information(moments_of(x, good), start, total_of(x, start), sums, 0.0)
    stepped = start + np.linalg.solve(information, gradient(x, good, start, 0.0))
    assert np.abs(stepped - best).max() < 0.2 * np.abs(start - best).max()


def test_secant_update_meets_the_secant_equation_and_stays_positive() -> None:
    x, good = sample(9)
    points = [np.zeros(4), 0.5 * optimum(x, good)]
    gradients = [gradient(x, good, point, 1.0) for point in points]
    corrected = secant_update(np.eye(4) * 50, points, gradients)
    assert corrected @ (points[1] - points[0]) == pytest.approx(gradients[0] - gradients[1])
    assert np.linalg.eigvalsh(corrected).min() > 0


@given(seed=st.integers(0, 10_000), visited=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_secant_update_stays_positive_definite(seed: int, visited: int) -> None:
    x, good = sample(seed, rows=100)
    rng = np.random.default_rng(seed)
    points = [rng.normal(size=4) for _ in range(visited)]
    corrected = secant_update(np.eye(4) * 20, points, [gradient(x, good, one, 1.0) for one in points])
    assert np.linalg.eigvalsh((corrected + corrected.T) / 2).min() > 0


def test_secant_update_ignores_a_gradient_that_shows_no_curvature() -> None:
    points = [np.zeros(2), np.ones(2)]
    gradients = [np.zeros(2), np.ones(2)]  # a gradient that grows uphill
    assert np.array_equal(secant_update(np.eye(2), points, gradients), np.eye(2))
    assert np.array_equal(secant_update(np.eye(2), points[-1:], gradients[-1:]), np.eye(2))
