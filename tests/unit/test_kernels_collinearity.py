from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from statsmodels.stats.outliers_influence import variance_inflation_factor

from fedcredit.errors import DataError
from fedcredit.kernels.collinearity import Dropped, correlation_from_moments, select, variance_inflation


def columns(seed: int = 0, rows: int = 500) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(rows, 3))
    mixed = np.column_stack(
        (base, base[:, 0] + 0.5 * rng.normal(size=rows), base[:, 1] - base[:, 2] + rng.normal(size=rows))
    )
    return np.rint(20 * mixed).astype(np.int64)


def correlation(X: NDArray[np.int64]) -> NDArray[np.float64]:
    return correlation_from_moments(X.shape[0], X.sum(axis=0), X.T @ X)


def test_correlation_agrees_with_numpy() -> None:
    X = columns()
    np.testing.assert_allclose(correlation(X), np.corrcoef(X.T), atol=1e-14)
    np.testing.assert_array_equal(correlation(X), correlation(X).T)


def test_correlation_does_not_cancel_or_overflow() -> None:
    X = columns(1)
    far = (X + 10**12).astype(np.object_)
    shifted = correlation_from_moments(X.shape[0], far.sum(axis=0), far.T @ far)
    np.testing.assert_allclose(shifted, correlation(X), atol=1e-15)


def test_a_constant_column_correlates_with_nothing() -> None:
    X = columns()
    X[:, 1] = 7
    result = correlation(X)
    assert result[1].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert variance_inflation(result)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "sums", "products", "code"),
    [
        (5, [1, 2], [[1]], "collinearity.shape"),
        (0, [1], [[1]], "collinearity.shape"),
        (5, [1.0], [[1]], "collinearity.type"),
        (5, [1, 1], [[3, 1], [2, 3]], "collinearity.symmetry"),
        (2, [4], [[1]], "collinearity.moments"),
        (2, [0, 0], [[1, 2], [2, 1]], "collinearity.moments"),
    ],
)
def test_impossible_moments_are_named(rows: int, sums: list[int], products: list[list[int]], code: str) -> None:
    with pytest.raises(DataError) as caught:
        correlation_from_moments(rows, sums, products)
    assert caught.value.code == code


def test_variance_inflation_agrees_with_statsmodels_and_the_inverse() -> None:
    X = columns(2)
    factors = variance_inflation(correlation(X))
    design = sm.add_constant(X.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = [variance_inflation_factor(design, place) for place in range(1, X.shape[1] + 1)]
    np.testing.assert_allclose(factors, twin, rtol=1e-9)
    np.testing.assert_allclose(factors, np.diag(np.linalg.inv(correlation(X))), rtol=1e-9)


def test_dependent_columns_are_infinite_and_the_others_keep_their_value() -> None:
    X = columns(3)
    dependent = np.column_stack((X, X[:, 0] + X[:, 1]))
    factors = variance_inflation(correlation(dependent))
    assert np.isinf(factors).tolist() == [True, True, False, False, False, True]
    np.testing.assert_allclose(factors[2:5], variance_inflation(correlation(X))[2:], rtol=1e-6)


def test_small_matrices() -> None:
    assert variance_inflation(np.zeros((0, 0))).tolist() == []
    assert variance_inflation([[1.0]]).tolist() == [1.0]
    assert variance_inflation([[1.0, 0.6], [0.6, 1.0]]).tolist() == pytest.approx([1 / 0.64] * 2)


def test_a_weaker_twin_is_dropped_against_the_strongest_better_one() -> None:
    matrix = np.array([[1.0, 0.2, 0.92], [0.2, 1.0, -0.95], [0.92, -0.95, 1.0]])
    chosen = select(matrix, [1, 0, 2], 0.9, math.inf)
    assert chosen.kept == (1, 0)
    assert chosen.dropped == (Dropped(2, "correlation", 1, 0.95, 0.9),)
    assert select(matrix, [2, 1, 0], 0.9, math.inf).kept == (2,)
    assert select(matrix, [0, 1, 2], 1.0, math.inf).dropped == ()
    assert select(matrix, [1, 0, 2], 0.95, math.inf).dropped == ()  # the limit itself is allowed


def test_the_worst_factor_goes_first_and_the_later_of_equals() -> None:
    # 0 and 1 independent, 2 = 0 + 1 nearly: 2 has the largest factor whatever its rank.
    X = columns(4)[:, :2]
    third = X.sum(axis=1, keepdims=True) + np.random.default_rng(4).integers(-2, 3, (X.shape[0], 1))
    matrix = correlation(np.column_stack((X, third)))
    chosen = select(matrix, [2, 0, 1], 0.9, 10.0)
    assert [(drop.feature, drop.reason) for drop in chosen.dropped] == [(2, "vif")]
    assert chosen.dropped[0].value == pytest.approx(variance_inflation(matrix)[2])
    assert chosen.dropped[0].against in (0, 1)
    exact = correlation(np.column_stack((X, X.sum(axis=1))))
    singular = select(exact, [2, 0, 1], 0.9, 10.0)
    assert singular.kept == (2, 0)
    assert (singular.dropped[0].feature, singular.dropped[0].value) == (1, math.inf)


def test_limits_hold_for_what_is_kept() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        mix = rng.normal(size=(12, 12)) * (rng.random((12, 12)) < 0.4) + np.eye(12)
        X = np.rint(10 * rng.normal(size=(300, 12)) @ mix).astype(np.int64)
        matrix = correlation(X)
        order = rng.permutation(12).tolist()
        chosen = select(matrix, order, 0.7, 3.0)
        kept = list(chosen.kept)
        part = matrix[np.ix_(kept, kept)]
        assert variance_inflation(part).max() <= 3.0
        assert np.abs(part - np.eye(len(kept))).max() <= 0.7
        assert sorted(kept + [drop.feature for drop in chosen.dropped]) == list(range(12))
        assert kept == [place for place in order if place in kept]
        for drop in chosen.dropped:
            assert drop.value > drop.limit
            if drop.reason == "correlation":
                assert drop.against is not None
                assert abs(matrix[drop.feature, drop.against]) == drop.value
                assert order.index(drop.against) < order.index(drop.feature)


@pytest.mark.parametrize(
    ("matrix", "order", "limits", "code"),
    [
        ([[1.0, 0.0]], [0], (0.9, 10.0), "collinearity.shape"),
        ([[1.0, 0.5], [0.2, 1.0]], [0], (0.9, 10.0), "collinearity.symmetry"),
        ([[1.0]], [0, 0], (0.9, 10.0), "collinearity.order"),
        ([[1.0]], [1], (0.9, 10.0), "collinearity.order"),
        ([[1.0]], [0], (1.1, 10.0), "collinearity.limit"),
        ([[1.0]], [0], (0.9, math.nan), "collinearity.limit"),
    ],
)
def test_bad_input_is_named(
    matrix: list[list[float]], order: list[int], limits: tuple[float, float], code: str
) -> None:
    with pytest.raises(DataError) as caught:
        select(matrix, order, *limits)
    assert caught.value.code == code
