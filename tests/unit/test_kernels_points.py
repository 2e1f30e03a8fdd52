from __future__ import annotations

import math

import numpy as np
import pytest

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.points import (
    PointScale,
    integer_points,
    logit_of_points,
    points_of_logit,
    probability_of_bad,
    split_points,
    total_points,
)

SCALE = PointScale(600, 20.0, 50.0)
TABLES = [np.array([0.5, 0.0, -0.7]), np.array([1.2, -0.4])]


def test_scale_has_base_odds_at_the_base_score_and_doubles_every_pdo() -> None:
    assert logit_of_points(SCALE, [600, 650, 550]).tolist() == pytest.approx([math.log(20), math.log(40), math.log(10)])
    assert probability_of_bad(SCALE, 600) == pytest.approx(1 / 21)
    assert np.all(np.diff(probability_of_bad(SCALE, np.arange(300, 900))) < 0)


def test_base_carries_the_intercept_and_neutral_bins_have_no_points() -> None:
    points = split_points(SCALE, 1.5, [0.9, 0.4], TABLES)
    assert points.base == pytest.approx(SCALE.offset + SCALE.factor * 1.5)
    assert points.bins[0][1] == 0.0
    assert points.bins[0][0] == pytest.approx(50 / math.log(2) * 0.45)


def test_spread_moves_the_base_into_the_bins() -> None:
    plain, spread = (split_points(SCALE, 1.5, [0.9, 0.4], TABLES, spread=s) for s in (False, True))
    assert spread.base == 0.0
    np.testing.assert_allclose(spread.bins[1], plain.bins[1] + plain.base / 2)


def test_integer_points_are_the_nearest() -> None:
    rounded = integer_points(split_points(SCALE, 1.5, [0.9, 0.4], TABLES))
    assert rounded.base == round(SCALE.offset + SCALE.factor * 1.5)
    assert [table.dtype for table in rounded.bins] == [np.int64, np.int64]
    assert rounded.bins[0].tolist() == [32, 0, -45]
    total = total_points(rounded, [np.array([0, 2]), np.array([1, 0])])
    assert total.dtype == np.int64
    assert total.tolist() == [rounded.base + 32 + int(rounded.bins[1][1]), rounded.base - 45 + int(rounded.bins[1][0])]


@pytest.mark.parametrize("wrong", [{"base_odds": 0.0}, {"pdo": -1.0}, {"pdo": math.inf}, {"base_score": math.nan}])
def test_scale_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        PointScale(**({"base_score": 600, "base_odds": 20.0, "pdo": 50.0} | wrong))


@pytest.mark.parametrize(
    ("coefficients", "tables", "code"),
    [
        ([1.0], TABLES, "points.shape"),
        ([1.0, 1.0], [[1.0], []], "points.table"),
        ([1.0, 1.0], [[1.0], [math.nan]], "points.table"),
        ([1.0, math.inf], TABLES, "points.coefficient"),
    ],
)
def test_bad_models_are_named(coefficients: list[float], tables: list[list[float]], code: str) -> None:
    with pytest.raises(DataError) as caught:
        split_points(SCALE, 0.0, coefficients, tables)
    assert caught.value.code == code


def test_nothing_to_spread_over_is_an_error() -> None:
    assert split_points(SCALE, 0.0, [], []).base == pytest.approx(SCALE.offset)
    with pytest.raises(DataError, match="spread"):
        split_points(SCALE, 0.0, [], [], spread=True)


def test_codes_outside_the_tables_are_errors() -> None:
    points = split_points(SCALE, 0.0, [1.0, 1.0], TABLES)
    with pytest.raises(DataError, match="2 tables"):
        total_points(points, [np.array([0])])
    for wrong in (3, -1):
        with pytest.raises(DataError, match="feature 0"):
            total_points(points, [np.array([wrong]), np.array([0])])


def test_whole_points_of_a_logit_are_the_nearest() -> None:
    logit = np.linspace(-6, 6, 101)
    points = points_of_logit(SCALE, logit)
    assert points.dtype == np.int64
    assert np.abs(logit_of_points(SCALE, points) - logit).max() <= 0.5 / SCALE.factor
    assert points_of_logit(SCALE, math.log(20.0)) == 600
