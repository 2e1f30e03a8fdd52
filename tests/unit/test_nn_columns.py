"""Columns become inputs from sums alone, and the sums of parts are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from fedcredit.errors import BoundError
from fedcredit.kernels import nn_columns
from fedcredit.kernels.nn_columns import (
    BUCKETS,
    MOMENT_UNIT,
    Encoding,
    bucket_counts,
    common_scales,
    exponent_counts,
    moment_sums,
)

NAN = float("nan")


def made(n: int = 4000) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    source = np.random.default_rng(3)
    columns = [
        source.normal(size=n),
        1e7 * np.exp(source.normal(size=n)),
        2000 + source.integers(0, 20, n),
        1e-9 * source.normal(size=n),
        np.where(source.random(n) < 0.3, NAN, source.normal(5, 2, size=n)),
        np.zeros(n),
    ]
    return np.column_stack(columns)


def encoding(numbers: np.ndarray[tuple[int, int], np.dtype[np.float64]], least: int = 20) -> Encoding:
    scales = common_scales(exponent_counts(numbers))
    none = np.zeros((0, BUCKETS + 1), dtype=np.int64)
    return Encoding.of_sums(len(numbers), scales, moment_sums(numbers, scales), none, least)


def test_counts_of_exponents() -> None:
    found = exponent_counts(np.array([[0.0], [1.0], [-1.5], [NAN], [1e300], [1e-300], [0.75]]))[0]
    assert found.sum() == 6
    assert found[0] == 1
    assert found[1 + 64] == 2  # 1 and 1.5 lie in [2^0, 2^1)
    assert found[1 + 63] == 1
    assert found[1] == found[-1] == 1


def test_scales_leave_out_a_thousandth() -> None:
    values = np.full((10_000, 1), 3.0)
    assert common_scales(exponent_counts(values)).tolist() == [2]
    values[:10] = 1e6
    assert common_scales(exponent_counts(values)).tolist() == [2]
    values[:11] = 1e6
    assert common_scales(exponent_counts(values)).tolist() == [20]
    assert common_scales(exponent_counts(np.zeros((5, 1)))).tolist() == [0]


def test_small_counts_may_be_noise() -> None:
    counts = exponent_counts(np.full((10_000, 1), 3.0))
    counts[0, 100:] += 40
    assert common_scales(counts).tolist() == [64]
    assert common_scales(counts, 100.0).tolist() == [2]


def test_inputs_are_standard_scores() -> None:
    numbers = made()
    found = encoding(numbers)
    inputs = found.rows(
        numbers, np.zeros((len(numbers), 0), dtype=np.int64), np.zeros(len(numbers), dtype=np.bool_)
    ).numbers
    assert inputs.shape == (len(numbers), 7)
    assert found.missing == (4,)
    for column in (0, 1, 2, 3, 4):
        assert abs(inputs[:, column].mean()) < 1e-2
        assert 0.8 < inputs[:, column].std() < 1.03
    assert np.array_equal(inputs[:, 6] > 0, np.isnan(numbers[:, 4]))
    assert not inputs[np.isnan(numbers[:, 4]), 4].any()
    assert not inputs[:, 5].any()


def test_means_are_those_of_the_values() -> None:
    numbers = made()
    found = encoding(numbers)
    for at in (0, 2, 3):
        mean, deviation = (one * 2.0 ** found.scales[at] for one in (found.means[at], found.deviations[at]))
        assert mean == pytest.approx(numbers[:, at].mean(), abs=1e-3 * numbers[:, at].std())
        assert deviation == pytest.approx(numbers[:, at].std(), rel=0.02)


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    numbers = made()
    parts = [numbers[:500], numbers[500:1700], numbers[1700:]]
    assert np.array_equal(sum(exponent_counts(one) for one in parts), exponent_counts(numbers))
    scales = common_scales(exponent_counts(numbers))
    total = sum(moment_sums(one, scales) for one in parts)
    assert np.abs(total - moment_sums(numbers, scales)).max() <= 2


def test_missing_is_an_input_only_where_it_is_seen_often() -> None:
    numbers = np.ones((100, 1)) * np.arange(100)[:, None]
    numbers[:19] = NAN
    assert encoding(numbers, 20).missing == ()
    numbers[:20] = NAN
    assert encoding(numbers, 20).missing == (0,)


def test_rare_categories_share_a_code() -> None:
    buckets = np.array([[7]] * 30 + [[4095]] * 25 + [[9]] * 3 + [[-1]] * 22)
    counts = bucket_counts(buckets)
    assert counts.shape == (1, BUCKETS + 1)
    empty = np.zeros((0, 3), dtype=np.int64)
    found = Encoding.of_sums(80, np.zeros(0, dtype=np.int64), empty, counts, 20)
    assert found.kept == ((7, 4095),)
    assert found.codes == (4,)
    seen = np.array([[7], [9], [4095], [-1], [123]])
    codes = found.rows(np.zeros((5, 0)), seen, np.zeros(5, dtype=np.bool_)).codes
    assert codes[:, 0].tolist() == [1, 0, 2, 3, 0]
    few = Encoding.of_sums(80, np.zeros(0, dtype=np.int64), empty, counts, 23)
    assert few.codes == (3,)
    assert few.rows(np.zeros((5, 0)), seen, np.zeros(5, dtype=np.bool_)).codes[:, 0].tolist() == [1, 0, 2, 0, 0]


def test_far_values_do_not_carry_a_step() -> None:
    numbers = np.random.default_rng(0).normal(size=(5000, 1))
    numbers[0] = 1e9
    found = encoding(numbers)
    inputs = found.rows(numbers, np.zeros((5000, 0), dtype=np.int64), np.zeros(5000, dtype=np.bool_)).numbers
    assert np.abs(inputs).max() <= 8


def test_sums_keep_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = moment_sums(np.full((1000, 1), -5.0), np.array([3]))
    assert sums.tolist() == [[1000 * MOMENT_UNIT, -625 * MOMENT_UNIT, round(1000 * 0.390625 * MOMENT_UNIT)]]
    monkeypatch.setattr(nn_columns, "MAX_ROWS", 10)
    with pytest.raises(BoundError, match="at most 10"):
        moment_sums(np.zeros((11, 1)), np.zeros(1, dtype=np.int64))


def test_directions_are_of_columns_not_of_what_is_missing() -> None:
    numbers = np.full((50, 2), NAN)
    numbers[25:] = np.arange(50).reshape(25, 2)
    assert encoding(numbers).directions((1, -1)) == (1, -1, 0, 0)
