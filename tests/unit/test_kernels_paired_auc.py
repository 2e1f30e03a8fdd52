"""The difference of two AUCs on the same rows, and its standard error."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.errors import DataError
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.paired_auc import auc_difference


def by_definition(y: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """DeLong, DeLong & Clarke-Pearson (1988), equations 3 to 5, pair by pair."""

    def wins(risk: np.ndarray) -> np.ndarray:
        bads, goods = risk[y == 1], risk[y == 0]
        return np.array([[1.0 if b > g else 0.5 if b == g else 0.0 for g in goods] for b in bads])

    one, two = wins(first), wins(second)
    m, n = one.shape
    ten = np.cov(one.mean(axis=1), two.mean(axis=1))
    oh_one = np.cov(one.mean(axis=0), two.mean(axis=0))
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (ten / m + oh_one / n) @ contrast
    return float(one.mean() - two.mean()), float(np.sqrt(max(variance, 0.0)))


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_definition(ties: bool) -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(120) < 0.3).astype(int)
    first, second = y + rng.normal(size=120), 0.5 * y + rng.normal(size=120)
    if ties:
        first, second = first.round(0), second.round(1)
    found = auc_difference(y, first, second)
    assert found == pytest.approx(by_definition(y, first, second), abs=1e-12)
    assert found[0] == pytest.approx(auc(y, first) - auc(y, second), abs=1e-12)
    assert auc_difference(y, second, first) == pytest.approx((-found[0], found[1]), abs=1e-12)


def test_scores_that_rank_alike_do_not_differ() -> None:
    rng = np.random.default_rng(4)
    y, risk = (rng.random(50) < 0.5).astype(int), rng.normal(size=50)
    assert auc_difference(y, risk, np.exp(risk)) == (0.0, 0.0)


def test_the_error_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(5)
    found, errors = [], []
    for _ in range(400):
        y = (rng.random(300) < 0.3).astype(int)
        shared = y + rng.normal(size=300)
        pair = shared + 0.5 * rng.normal(size=300), shared + 0.8 * rng.normal(size=300)
        difference, error = auc_difference(y, *pair)
        found.append(difference)
        errors.append(error)
    assert float(np.mean(errors)) == pytest.approx(float(np.std(found)), rel=0.12)


def test_shapes_and_classes_are_checked() -> None:
    with pytest.raises(DataError, match="one length"):
        auc_difference([0, 1], [1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="at least 2"):
        auc_difference([0, 1, 0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
