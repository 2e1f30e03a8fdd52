"""Discriminant coefficients against scikit-learn's, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fedcredit.errors import DataError
from fedcredit.kernels.discriminant import Moments, discriminant

Floats = NDArray[np.float64]


def sample(seed: int, rows: int = 400, columns: int = 4) -> tuple[Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    good = rng.random(rows) < 0.7
    mixing = rng.normal(size=(columns, columns))
    return rng.normal(size=(rows, columns)) @ mixing + 0.4 * good[:, None], good


def moments_of(x: Floats, good: NDArray[np.bool_]) -> Moments:
    return Moments(int(good.sum()), int((~good).sum()), x[good].sum(axis=0), x[~good].sum(axis=0), x.T @ x)


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(seed: int) -> None:
    x, good = sample(seed)
    found = discriminant(moments_of(x, good), ridge=0.0)
    library = LinearDiscriminantAnalysis(solver="svd").fit(x, good)
    # scikit-learn divides the within-class scatter by the rows, we by the rows less the two means that were estimated
    shrunk = (len(x) - 2) / len(x)
    assert found[1:] == pytest.approx(library.coef_[0] * shrunk, rel=1e-9)
    odds = np.log(good.sum() / (~good).sum())
    assert found[0] - odds == pytest.approx((float(library.intercept_[0]) - odds) * shrunk, rel=1e-9)


def test_moments_are_mean_and_covariance() -> None:
    x, good = sample(7)
    moments = moments_of(x, good)
    assert moments.rows == len(x)
    assert moments.mean == pytest.approx(x.mean(axis=0))
    assert moments.covariance == pytest.approx(np.cov(x.T, bias=True))


def test_columns_can_come_in_any_order() -> None:
    x, good = sample(1)
    order = np.array([2, 0, 3, 1])
    first = discriminant(moments_of(x, good), ridge=1.0)
    second = discriminant(moments_of(x[:, order], good), ridge=1.0)
    assert second[1:] == pytest.approx(first[1:][order])
    assert second[0] == pytest.approx(first[0])


def test_ridge_shrinks_and_tames_collinear_columns() -> None:
    x, good = sample(2)
    free, tamed = (discriminant(moments_of(x, good), ridge=ridge)[1:] for ridge in (0.0, 1e4))
    assert np.linalg.norm(tamed) < 0.5 * np.linalg.norm(free)
    doubled = np.column_stack([x, x[:, 0]])
    slopes = discriminant(moments_of(doubled, good), ridge=1.0)[1:]
    assert np.isfinite(slopes).all()
    assert slopes[0] == pytest.approx(slopes[-1])  # the ridge shares what one column says between its two copies


def test_collinear_columns_without_ridge_are_refused() -> None:
    good = np.array([True, True, False, False])
    x = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [5.0, 10.0]])
    with pytest.raises(DataError) as caught:
        discriminant(moments_of(x, good), ridge=0.0)
    assert caught.value.code == "fit.collinear"


def test_no_columns_are_refused() -> None:
    with pytest.raises(DataError, match="no feature is left"):
        discriminant(Moments(10, 10, np.zeros(0), np.zeros(0), np.zeros((0, 0))), ridge=1.0)
