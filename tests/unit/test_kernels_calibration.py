from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special
from statsmodels.stats.proportion import proportion_confint

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.calibration import prior_offset, prior_shift, recalibrate, reliability
from fedcredit.kernels.logistic import fit_logistic
from fedcredit.kernels.metrics import brier, ece


def test_a_balanced_sample_of_a_population_with_17_5_percent_shifts_by_1_55() -> None:
    assert prior_offset(0.5, 0.175) == pytest.approx(-1.5506, abs=1e-4)
    np.testing.assert_allclose(prior_shift([0.0, 1.0], 0.5, 0.175), [-1.5506, -0.5506], atol=1e-4)
    assert special.expit(prior_shift(0.0, 0.5, 0.175)) == pytest.approx(0.175)
    assert prior_offset(0.2, 0.2) == 0.0


def test_prior_shift_undoes_sampling_by_class() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200_000)
    y = rng.random(x.size) < special.expit(-2.0 + x)
    kept = y | (rng.random(x.size) < y.mean() / (1 - y.mean()))
    fit = fit_logistic(x[kept].reshape(-1, 1), y[kept])
    shifted = prior_shift(fit.logit(x.reshape(-1, 1)), float(y[kept].mean()), float(y.mean()))
    assert special.expit(shifted).mean() == pytest.approx(y.mean(), abs=2e-3)
    assert np.abs(shifted - (-2.0 + x)).max() < 0.15


@pytest.mark.parametrize(("sample", "true"), [(0.0, 0.2), (0.5, 1.0), (0.5, -0.1), (float("nan"), 0.2)])
def test_rates_outside_0_and_1_are_refused(sample: float, true: float) -> None:
    with pytest.raises(SpecError, match="bad rate"):
        prior_offset(sample, true)


def test_recalibration_finds_the_line_and_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=20_000)
    y = (rng.random(logit.size) < special.expit(-1.0 + 0.5 * logit)).astype(np.int64)
    line = recalibrate(logit, y)
    assert line.intercept == pytest.approx(-1.0, abs=4 * line.intercept_error)
    assert line.slope == pytest.approx(0.5, abs=4 * line.slope_error)
    twin = sm.Logit(y, sm.add_constant(logit)).fit(disp=0)
    np.testing.assert_allclose([line.intercept, line.slope], twin.params, atol=1e-6)
    np.testing.assert_allclose([line.intercept_error, line.slope_error], twin.bse, rtol=1e-5)
    probability = special.expit(line.apply(logit))
    assert probability.mean() == pytest.approx(y.mean(), abs=1e-9)
    assert ece(y, probability) < ece(y, special.expit(logit)) / 5
    again = recalibrate(line.apply(logit), y)
    assert (again.intercept, again.slope) == pytest.approx((0.0, 1.0), abs=1e-7)


def test_recalibration_on_equal_logits_is_a_named_error() -> None:
    with pytest.raises(DataError) as caught:
        recalibrate([0.3] * 10, [0, 1] * 5)
    assert caught.value.code == "logistic.singular"


def test_reliability_has_wilson_intervals_and_agrees_with_the_measures() -> None:
    rng = np.random.default_rng(2)
    probability = rng.random(5000)
    y = (rng.random(5000) < probability).astype(np.int64)
    table = reliability(y, probability, 8)
    lower, upper = proportion_confint(table.bads, table.rows, method="wilson")
    np.testing.assert_allclose(table.lower, lower, atol=1e-12)
    np.testing.assert_allclose(table.upper, upper, atol=1e-12)
    assert table.ece == pytest.approx(ece(y, probability, 8))
    assert table.brier == brier(y, probability)
    assert table.ratio == pytest.approx(y.sum() / probability.sum())
    assert table.rows.tolist() == [625] * 8
    assert reliability(y, np.zeros(5000)).ratio == np.inf
