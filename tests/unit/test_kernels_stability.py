from __future__ import annotations

import math

import pytest
from scipy import stats

from fedcredit.errors import DataError
from fedcredit.kernels import metrics
from fedcredit.kernels.stability import population_stability, stability_table


def test_index_is_the_symmetric_divergence_of_the_shares() -> None:
    expected, actual = [100, 300, 600], [200, 300, 500]
    twin = stats.entropy(actual, expected) + stats.entropy(expected, actual)
    assert population_stability(expected, actual) == pytest.approx(twin, abs=1e-14)
    assert metrics.population_stability is population_stability


def test_index_does_not_depend_on_the_sizes_or_the_side() -> None:
    assert population_stability([10, 30], [300, 100]) == pytest.approx(population_stability([3, 1], [1, 3]))
    assert population_stability([5, 7], [50, 70]) == pytest.approx(0.0, abs=1e-15)


def test_an_empty_bin_counts_as_half_a_row() -> None:
    share = 0.5 / 100.5
    twin = (share - 0.5) * math.log(share / 0.5) + (100 / 100.5 - 0.5) * math.log(100 / 100.5 / 0.5)
    assert population_stability([50, 50], [0, 100]) == pytest.approx(twin)


@pytest.mark.parametrize(
    ("actual", "level"), [([500, 500], "stable"), ([640, 360], "stable"), ([680, 320], "moving"), ([760, 240], "moved")]
)
def test_levels_follow_the_customary_limits(actual: list[int], level: str) -> None:
    table = stability_table([500, 500], actual)
    assert table.level == level
    assert table.contribution.sum() == pytest.approx(table.index)
    assert table.expected_share.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([], []), ([1, 2], [1, 2, 3]), ([0, 0], [1, 1]), ([1, -1], [1, 1]), ([1, float("nan")], [1, 1])],
)
def test_bad_counts_are_named(expected: list[float], actual: list[float]) -> None:
    with pytest.raises(DataError) as caught:
        population_stability(expected, actual)
    assert caught.value.code == "kernels.counts"
