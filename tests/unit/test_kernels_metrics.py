"""Each measure against a library and against a slow literal twin."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from fedcredit.errors import DataError
from fedcredit.kernels import metrics

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def sample(seed: int, rows: int, levels: int) -> tuple[Ints, Floats]:
    """Scores with many ties (``levels`` distinct probabilities) and labels that follow them."""
    rng = np.random.default_rng(seed)
    probability = (rng.integers(0, levels, rows) + 0.5) / levels
    y = (rng.random(rows) < 0.15 + 0.5 * probability).astype(np.int64)
    y[:2] = 0, 1
    return y, probability


SAMPLES = [sample(1, 400, 7), sample(2, 1000, 50), sample(3, 300, 10**9), sample(4, 50, 2)]


def literal_auc(y: Ints, risk: Floats) -> Fraction:
    wins = Fraction(0)
    for bad in risk[y == 1].tolist():
        for good in risk[y == 0].tolist():
            wins += Fraction(1) if bad > good else Fraction(1, 2) if bad == good else Fraction(0)
    return wins / (int((y == 1).sum()) * int((y == 0).sum()))


@pytest.mark.parametrize(("y", "risk"), SAMPLES)
def test_auc_is_the_exact_fraction_and_agrees_with_sklearn(y: Ints, risk: Floats) -> None:
    if y.size <= 400:
        assert Fraction(*metrics.auc_fraction(y, risk)) == literal_auc(y, risk)
    assert metrics.auc(y, risk) == pytest.approx(sk.roc_auc_score(y, risk), abs=1e-12)
    assert metrics.gini(y, risk) == pytest.approx(2 * sk.roc_auc_score(y, risk) - 1, abs=1e-12)


def test_auc_of_a_million_rows_does_not_overflow() -> None:
    n = 1_000_000
    y = np.zeros(n, dtype=np.int8)
    y[n // 2 :] = 1
    risk = np.arange(n, dtype=np.float64)
    assert metrics.auc_fraction(y, risk) == (n * n // 2, n * n // 2)
    assert metrics.auc_fraction(y, -risk) == (0, n * n // 2)
    assert metrics.ks(y, risk) == 1.0


@pytest.mark.parametrize(("y", "risk"), SAMPLES)
def test_roc_curve_agrees_with_sklearn(y: Ints, risk: Floats) -> None:
    curve = metrics.roc_curve(y, risk)
    fpr, tpr, thresholds = sk.roc_curve(y, risk, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr, atol=1e-14)
    np.testing.assert_allclose(curve.true_positive_rate, tpr, atol=1e-14)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(metrics.auc(y, risk))


@pytest.mark.parametrize(("y", "risk"), SAMPLES)
def test_ks_is_the_two_sample_distance(y: Ints, risk: Floats) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's p-value falls back to its asymptotic form
        expected = stats.ks_2samp(risk[y == 1], risk[y == 0]).statistic
    literal = max(
        abs(
            Fraction(int((risk[y == 1] <= t).sum()), int(y.sum()))
            - Fraction(int((risk[y == 0] <= t).sum()), int((1 - y).sum()))
        )
        for t in np.unique(risk)
    )
    assert metrics.ks(y, risk) == pytest.approx(expected, abs=1e-12)
    assert metrics.ks(y, risk) == float(literal)
    assert metrics.ks(y, -risk) == metrics.ks(y, risk)


@pytest.mark.parametrize(("y", "probability"), SAMPLES)
def test_brier_and_log_loss_agree_with_sklearn(y: Ints, probability: Floats) -> None:
    assert metrics.brier(y, probability) == pytest.approx(sk.brier_score_loss(y, probability), abs=1e-14)
    assert metrics.log_loss(y, probability) == pytest.approx(sk.log_loss(y, probability), abs=1e-12)


def test_log_loss_of_a_sure_and_wrong_forecast_is_finite() -> None:
    assert metrics.log_loss([1, 0], [0.0, 0.0]) == pytest.approx(-math.log(1e-15) / 2, rel=1e-6)


def test_calibration_curve_agrees_with_sklearn_where_there_are_no_ties() -> None:
    y, probability = sample(5, 1000, 10**9)
    curve = metrics.calibration_curve(y, probability, 10)
    observed, predicted = sk_calibration.calibration_curve(y, probability, n_bins=10, strategy="quantile")
    assert curve.rows.tolist() == [100] * 10
    np.testing.assert_allclose(curve.bad_rate, observed, atol=1e-14)
    np.testing.assert_allclose(curve.mean_probability, predicted, atol=1e-14)


def literal_groups(values: Floats, groups: int) -> list[int]:
    """Group of each row, by counting: twice the middle position of its ties over twice the rows."""
    result = []
    for value in values.tolist():
        below, equal = int((values < value).sum()), int((values == value).sum())
        result.append(math.floor(Fraction(groups * (2 * below + equal), 2 * values.size)))
    return result


@pytest.mark.parametrize(("y", "probability"), SAMPLES)
@pytest.mark.parametrize("groups", [1, 4, 10])
def test_ece_is_its_literal_twin(y: Ints, probability: Floats, groups: int) -> None:
    placed = np.array(literal_groups(probability, groups))
    expected = 0.0
    for group in sorted(set(placed.tolist())):
        inside = placed == group
        expected += inside.mean() * abs(y[inside].mean() - probability[inside].mean())
    assert metrics.ece(y, probability, groups) == pytest.approx(expected, abs=1e-12)
    curve = metrics.calibration_curve(y, probability, groups)
    assert curve.rows.tolist() == [int((placed == g).sum()) for g in sorted(set(placed.tolist()))]


@pytest.mark.parametrize(("y", "risk"), SAMPLES)
def test_gain_table_is_its_literal_twin(y: Ints, risk: Floats) -> None:
    table = metrics.gain_table(y, risk, 10)
    placed = np.array(literal_groups(-risk, 10))
    base, bads_seen, rows_seen = y.mean(), 0, 0
    for place, group in enumerate(sorted(set(placed.tolist()))):
        inside = placed == group
        rows, bads = int(inside.sum()), int(y[inside].sum())
        bads_seen, rows_seen = bads_seen + bads, rows_seen + rows
        assert (table.rows[place], table.bads[place]) == (rows, bads)
        assert table.bad_rate[place] == pytest.approx(bads / rows)
        assert table.lift[place] == pytest.approx(bads / rows / base)
        assert table.cumulative_bad_share[place] == pytest.approx(bads_seen / y.sum())
        assert table.cumulative_lift[place] == pytest.approx(bads_seen / rows_seen / base)
        goods_share = (rows_seen - bads_seen) / (1 - y).sum()
        assert table.ks[place] == pytest.approx(bads_seen / y.sum() - goods_share)
    assert table.rows.size == len(set(placed.tolist()))
    assert table.cumulative_bad_share[-1] == 1.0


def test_gain_table_puts_the_riskiest_first() -> None:
    y = np.array([0, 0, 0, 0, 1, 1])
    table = metrics.gain_table(y, np.arange(6.0), 3)
    assert table.bads.tolist() == [2, 0, 0]
    assert table.ks.tolist() == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("y", "risk", "code"),
    [
        ([0, 1, 1], [0.1, 0.2], "kernels.metric-shape"),
        ([], [], "kernels.metric-shape"),
        ([0, 2], [0.1, 0.2], "kernels.metric-label"),
        ([0, 1], [0.1, float("nan")], "kernels.metric-score"),
        ([0, 0], [0.1, 0.2], "kernels.metric-class"),
        ([1, 1], [0.1, 0.2], "kernels.metric-class"),
    ],
)
@pytest.mark.parametrize("measure", [metrics.auc, metrics.ks, metrics.gini, metrics.roc_curve, metrics.gain_table])
def test_bad_input_is_named(y: list[int], risk: list[float], code: str, measure: object) -> None:
    assert callable(measure)
    with pytest.raises(DataError) as caught:
        measure(y, risk)
    assert caught.value.code == code


@pytest.mark.parametrize("measure", [metrics.brier, metrics.log_loss, metrics.ece])
def test_a_logit_is_not_taken_for_a_probability(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(DataError, match="outside"):
        measure([0, 1], [-0.5, 1.5])


def test_no_groups_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 1"):
        metrics.ece([0, 1], [0.1, 0.2], 0)
