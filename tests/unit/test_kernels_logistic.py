from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.linear_model import LogisticRegression

from fedcredit.errors import DataError
from fedcredit.kernels.logistic import fit_logistic, wald

Floats = NDArray[np.float64]


def sample(seed: int = 0, rows: int = 800, features: int = 4) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)) * np.linspace(0.5, 3.0, features) + 1.0
    eta = -2.0 + X @ np.linspace(-0.8, 0.6, features)
    return X, (rng.random(rows) < special.expit(eta)).astype(np.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fit_agrees_with_statsmodels(seed: int) -> None:
    X, y = sample(seed)
    fit = fit_logistic(X, y)
    twin = sm.Logit(y, sm.add_constant(X)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(np.append(fit.intercept, fit.coefficients), twin.params, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(fit.covariance, twin.cov_params(), rtol=1e-6)
    assert fit.log_likelihood == pytest.approx(twin.llf, abs=1e-8)
    tests = wald(fit)
    np.testing.assert_allclose(tests.standard_errors, twin.bse, rtol=1e-6)
    np.testing.assert_allclose(tests.z, twin.tvalues, rtol=1e-6)
    np.testing.assert_allclose(tests.p, twin.pvalues, rtol=1e-5, atol=1e-300)
    np.testing.assert_allclose(tests.p, 2 * stats.norm.sf(np.abs(tests.z)), rtol=1e-10)
    assert fit.converged
    assert fit.iterations < 12


def test_weights_count_like_repeated_rows() -> None:
    X, y = sample(3, 300)
    weights = np.random.default_rng(3).integers(0, 4, y.size)
    fit = fit_logistic(X, y, weights=weights)
    repeated = fit_logistic(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(fit.coefficients, repeated.coefficients, atol=1e-10)
    np.testing.assert_allclose(fit.covariance, repeated.covariance, rtol=1e-8)
    twin = sm.GLM(y, sm.add_constant(X), family=sm.families.Binomial(), freq_weights=weights).fit(tol=1e-12)
    np.testing.assert_allclose(np.append(fit.intercept, fit.coefficients), twin.params, rtol=1e-6)
    np.testing.assert_allclose(wald(fit).standard_errors, twin.bse, rtol=1e-6)


@pytest.mark.parametrize("ridge", [0.1, 3.0, 200.0])
def test_ridge_agrees_with_sklearn(ridge: float) -> None:
    X, y = sample(4)
    fit = fit_logistic(X, y, ridge=ridge)
    twin = LogisticRegression(C=1.0 / ridge, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(X, y)
    np.testing.assert_allclose(fit.coefficients, twin.coef_[0], atol=1e-7)
    assert fit.intercept == pytest.approx(twin.intercept_[0], abs=1e-7)


def test_the_gradient_is_zero_at_the_fit() -> None:
    X, y = sample(5)
    fit = fit_logistic(X, y)
    residual = y - special.expit(fit.logit(X))
    assert abs(residual.sum()) < 1e-9
    assert np.abs(X.T @ residual).max() < 1e-8


def test_intercept_alone_is_the_logit_of_the_share() -> None:
    fit = fit_logistic(np.zeros((10, 0)), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert fit.intercept == pytest.approx(special.logit(0.3))
    assert fit.coefficients.shape == (0,)
    assert wald(fit).standard_errors == pytest.approx([np.sqrt(1 / 2.1)])


def test_one_binary_feature_has_the_closed_form() -> None:
    X = np.array([[0.0]] * 50 + [[1.0]] * 50)
    y = [1] * 10 + [0] * 40 + [1] * 30 + [0] * 20
    fit = fit_logistic(X, y)
    assert fit.coefficients[0] == pytest.approx(np.log((30 / 20) / (10 / 40)), abs=1e-10)
    assert wald(fit).standard_errors[1] == pytest.approx(np.sqrt(1 / 10 + 1 / 40 + 1 / 30 + 1 / 20), rel=1e-8)


@pytest.mark.parametrize(
    "y",
    [
        [0.0] * 20 + [1.0] * 20,  # complete separation
        [0.0] * 20 + [0.0, 1.0] * 5 + [1.0] * 10,  # quasi-separation: X ties where the classes mix
    ],
)
def test_separated_classes_end_in_a_named_error_and_ridge_helps(y: list[float]) -> None:
    X = np.concatenate((np.linspace(-2, -1, 20), np.zeros(10), np.linspace(1, 2, 10))).reshape(-1, 1)
    with pytest.raises(DataError, match="set ridge > 0") as caught:
        fit_logistic(X, y)
    assert caught.value.code == "logistic.separable"
    assert fit_logistic(X, y, ridge=0.1).converged


def test_a_bin_of_one_class_is_separation() -> None:
    X, y = sample(6)
    pure = (np.arange(y.size) < 30).astype(np.float64)
    y[:30] = 1.0
    with pytest.raises(DataError) as caught:
        fit_logistic(np.column_stack((X, pure)), y)
    assert caught.value.code == "logistic.separable"


def test_an_outlier_is_not_taken_for_separation() -> None:
    X, y = sample(7, 2000, 1)
    X[0], y[0] = 1e8, float(X[1:, 0] @ (y[1:] - y[1:].mean()) > 0)
    assert fit_logistic(X, y).converged


def test_steps_that_overshoot_are_halved() -> None:
    # From the overall share, the first full Newton step overshoots and the next ones run away.
    X, y, weights = [[0.0], [0.0], [3.0], [3.0]], [0, 1, 0, 1], [731, 13, 2, 82]
    fit = fit_logistic(X, y, weights=weights)
    assert fit.converged
    assert fit.intercept == pytest.approx(np.log(13 / 731), abs=1e-9)
    assert fit.coefficients[0] == pytest.approx((np.log(82 / 2) - np.log(13 / 731)) / 3, abs=1e-9)


def test_a_loose_tolerance_is_not_taken_for_separation() -> None:
    X, y = sample(11)
    loose, tight = fit_logistic(X, y, tolerance=10.0), fit_logistic(X, y)
    assert loose.converged
    np.testing.assert_allclose(loose.coefficients, tight.coefficients, atol=1e-5)


def test_rows_without_weight_have_no_say() -> None:
    X, y = sample(12)
    weights = np.ones(y.size)
    X[0], weights[0] = 1e15, 0.0
    fit = fit_logistic(X, y, weights=weights)
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, fit_logistic(X[1:], y[1:]).coefficients, atol=1e-10)


def test_dependent_features_end_in_a_named_error_and_ridge_helps() -> None:
    X, y = sample(9)
    doubled = np.column_stack((X, X[:, 0] + X[:, 1]))
    with pytest.raises(DataError) as caught:
        fit_logistic(doubled, y)
    assert caught.value.code == "logistic.singular"
    assert fit_logistic(doubled, y, ridge=1e-3).converged
    with pytest.raises(DataError) as caught:
        fit_logistic(np.column_stack((X, np.zeros(y.size))), y)
    assert caught.value.code == "logistic.singular"


def test_running_out_of_iterations_is_reported() -> None:
    X, y = sample(10)
    fit = fit_logistic(X, y, max_iterations=1)
    assert not fit.converged
    assert fit.iterations == 1


@pytest.mark.parametrize(
    ("X", "y", "options", "code"),
    [
        ([[1.0], [2.0]], [0], {}, "logistic.shape"),
        ([1.0, 2.0], [0, 1], {}, "logistic.shape"),
        ([[1.0], [np.nan]], [0, 1], {}, "logistic.value"),
        ([[1.0], [2.0]], [0, 2], {}, "logistic.label"),
        ([[1.0], [2.0]], [0, 0], {}, "logistic.class"),
        ([[1.0], [2.0]], [0, 1], {"weights": [1.0, 0.0]}, "logistic.class"),
        ([[1.0], [2.0]], [0, 1], {"weights": [1.0, -1.0]}, "logistic.weights"),
        ([[1.0], [2.0]], [0, 1], {"ridge": -1.0}, "logistic.ridge"),
    ],
)
def test_bad_input_is_named(X: object, y: list[int], options: dict[str, object], code: str) -> None:
    with pytest.raises(DataError) as caught:
        fit_logistic(X, y, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
