"""A holder's noise: exact integers, a proven bound, the deviation that is promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedcredit.crypto.noise import bounded_noise, exact_sd, noise_bound
from fedcredit.crypto.packing import Field, pack_offsets, plan
from fedcredit.errors import BoundError

SEED = bytes(range(32))
COUNT = 200_000


@pytest.mark.parametrize("sd", [0.5, 2.9, 30.0, 508.0, 131_068.0, 3e9])
def test_moments_and_bound(sd: float) -> None:
    values = bounded_noise(SEED, "moments", sd, COUNT)
    true = exact_sd(sd)
    assert values.dtype == np.int64
    assert sd <= true < sd + 3
    assert abs(values.mean()) < 6 * true / math.sqrt(COUNT)
    assert values.std() == pytest.approx(true, rel=6 / math.sqrt(2 * COUNT))
    assert abs(stats.skew(values)) < 6 * math.sqrt(6 / COUNT)
    assert int(np.abs(values).max()) <= noise_bound(sd)
    assert abs(stats.kurtosis(values)) < 0.2  # near normal: 0.1 below it for wide parts, 0.125 for the narrowest


@pytest.mark.parametrize("sd", [0.0, 1e-9, 1.0, 2.83, 2.829, 100.0, 12345.6])
def test_the_promised_deviation_is_that_of_the_law(sd: float) -> None:
    half = noise_bound(sd) // 12
    support = np.arange(-half, half + 1, dtype=float)
    assert exact_sd(sd) == pytest.approx(math.sqrt(12 * float((support**2).mean())))
    assert exact_sd(sd) >= sd
    assert half == 0 or 2 * math.sqrt((half - 1) * half) < sd  # and no wider part than needed


def test_the_whole_distribution_of_a_narrow_part() -> None:
    """Parts of three values each: the law is the twelvefold convolution, known exactly."""
    law = np.ones(1)
    for _ in range(12):
        law = np.convolve(law, np.full(3, 1 / 3))
    values = bounded_noise(SEED, "law", 1.0, COUNT)
    counts = np.bincount(values + 12, minlength=25)
    assert len(counts) == 25
    common = law * COUNT > 10
    assert stats.chisquare(counts[common], law[common] * counts[common].sum() / law[common].sum()).pvalue > 1e-4


def test_tails_are_no_heavier_than_they_are_said_to_be() -> None:
    values = np.abs(bounded_noise(SEED, "tails", 508.0, COUNT)) / exact_sd(508.0)
    for deviations in (2.0, 3.0, 4.0):
        assert (values > deviations).mean() <= 2 * math.exp(-(deviations**2) / 2)


def test_noise_follows_from_seed_label_and_deviation() -> None:
    made = [
        bounded_noise(SEED, "a", 508.0, 64),
        bounded_noise(SEED, "b", 508.0, 64),
        bounded_noise(bytes(32), "a", 508.0, 64),
        bounded_noise(SEED, "a", 512.0, 64),
    ]
    assert np.array_equal(made[0], bounded_noise(SEED, "a", 508.0, 64))
    for number, one in enumerate(made):
        for other in made[:number]:
            assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.6  # 64 values: nearly five deviations
            assert not np.array_equal(one, other)


def test_no_noise_is_none() -> None:
    assert noise_bound(0.0) == 0
    assert exact_sd(0.0) == 0.0
    assert not bounded_noise(SEED, "none", 0.0, 10).any()


@pytest.mark.parametrize("sd", [-1.0, math.nan, math.inf, 1e11])
def test_what_is_no_deviation_is_refused(sd: float) -> None:
    with pytest.raises(BoundError, match="standard deviation"):
        bounded_noise(SEED, "x", sd, 1)


def test_the_bound_is_room_enough_in_a_packed_sum() -> None:
    sd = 508.0
    packed = plan([Field(127, noise_bound(sd), exact_sd(sd))] * 2, 21_000, 1, 56)
    assert len(packed.vectors) == 1
    offsets = [bounded_noise(SEED, label, sd, 1000) for label in "gh"]
    assert len(pack_offsets(packed, offsets)) == 1
