"""Discrete Gaussian noise: the law itself, exactness at the margin, shares of several members, bounded vectors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fedcredit.crypto import discrete_gaussian as module
from fedcredit.crypto.discrete_gaussian import (
    LEAST_SD,
    NoiseSource,
    SumNoise,
    bounded_integers,
    discrete_gaussian,
    noise_bound,
    noise_for,
)
from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.errors import BoundError, DataError

LEAST_P = 1e-4  # of a right sampler one seed in ten thousand; the seeds are fixed


def seeded(label: str) -> UnsafeSeededEntropy:
    return UnsafeSeededEntropy(bytes(range(32))).child(label)


def exact_mass(variance: Fraction, reach: int) -> np.ndarray:
    """Probabilities of -reach..reach, and last of everything beyond."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * float(variance)))
    whole = 1 + 2 * sum(
        math.exp(-(k**2) / (2 * float(variance))) for k in range(1, 60 * (1 + math.isqrt(int(variance) + 1)))
    )
    mass = weights / whole
    return np.append(mass, max(0.0, 1 - mass.sum()))


def p_value(drawn: np.ndarray, variance: Fraction) -> float:
    """Chi-square against the exact mass; cells with few expected are joined with what lies beyond."""
    reach = max(1, int(3.5 * math.sqrt(float(variance))))
    expected = exact_mass(variance, reach) * len(drawn)
    places = np.where(np.abs(drawn) <= reach, drawn + reach, 2 * reach + 1)
    counts = np.bincount(places, minlength=2 * reach + 2).astype(float)
    few = expected < 5
    joined = (np.append(counts[~few], counts[few].sum()), np.append(expected[~few], expected[few].sum()))
    keep = joined[1] > 0
    seen, wanted = joined[0][keep], joined[1][keep]
    return float(stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue)


@pytest.mark.parametrize(
    "variance",
    [Fraction(1, 10), Fraction(1, 2), Fraction(1), Fraction(22, 7), Fraction(16), Fraction(1001, 10)],
    ids=str,
)
def test_draws_have_the_exact_mass(variance: Fraction) -> None:
    drawn = discrete_gaussian(seeded(f"mass/{variance}"), variance, 200_000)
    assert p_value(drawn, variance) > LEAST_P


def test_the_chi_square_notices_a_rounded_normal_and_a_wrong_variance() -> None:
    normal = np.random.default_rng(1).normal(0, 1, 200_000)
    assert p_value(np.rint(normal).astype(np.int64), Fraction(1)) < 1e-9
    assert p_value(discrete_gaussian(seeded("off"), Fraction(21, 20), 200_000), Fraction(1)) < 1e-9


def test_large_deviations_are_normal_in_shape() -> None:
    drawn = discrete_gaussian(seeded("large"), Fraction(2**60), 100_000) / 2.0**30
    assert stats.kstest(drawn, "norm").pvalue > LEAST_P


def test_what_floats_leave_open_is_decided_the_same_by_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the margin opened all coins go through integers: the same bytes must give the same draws."""
    for variance in (Fraction(1, 3), Fraction(50, 7), Fraction(10**9)):
        fast = discrete_gaussian(seeded("same"), variance, 400)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_MARGIN", 2.0**70)
            slow = discrete_gaussian(seeded("same"), variance, 400)
        assert np.array_equal(fast, slow)


@pytest.mark.parametrize(
    "rate", [Fraction(0), Fraction(1, 10**9), Fraction(1, 3), Fraction(1), Fraction(89, 2), Fraction(300)]
)
@pytest.mark.parametrize("bits", [64, 128])
def test_the_bracket_of_exp_holds_the_true_value(rate: Fraction, bits: int) -> None:
    low, high = module._exp_bracket(rate, bits)
    # An independent series in rationals, cut off by a bound on its rest.
    term, total, order = Fraction(1), Fraction(1), 0
    while term > Fraction(1, 10**60):
        order += 1
        term = term * rate / order
        total += term
    assert low <= Fraction(1 << bits) / total <= high
    assert high - low <= 2


def test_coins_at_an_undecided_word_draw_more_bits() -> None:
    low, _ = module._exp_bracket(Fraction(1), 64)  # the word in which exp(-1) lies
    given = [module._falls_below(UnsafeSeededEntropy(bytes([i]) * 32), low, Fraction(1)) for i in range(64)]
    assert 0 < sum(given) < 64
    assert module._falls_below(SystemEntropy(), low - 1, Fraction(1))
    assert not module._falls_below(SystemEntropy(), low + 1, Fraction(1))


def test_shares_of_members_add_up_to_the_variance_even_if_colluders_subtract_theirs() -> None:
    noise = SumNoise(sensitivity=1000, multiplier=1.5, sources=3)
    assert noise.variance * 3 == (Fraction(3, 2) * 1000) ** 2
    parts = [noise_for(seeded(f"member/{i}"), 50_000, noise) for i in range(3)]
    found = float(np.sum(parts, axis=0).astype(float).var())
    assert abs(found / 1500**2 - 1) < 4 * math.sqrt(2 / 50_000)


def test_the_sum_of_shares_has_the_shape_of_one_noise() -> None:
    noise = SumNoise(sensitivity=40, multiplier=1.0, sources=4)
    total = np.sum([noise_for(seeded(f"shape/{i}"), 100_000, noise) for i in range(4)], axis=0)
    assert p_value(total, Fraction(1600)) > LEAST_P


def test_the_same_stream_gives_the_same_noise_and_another_does_not() -> None:
    noise = SumNoise(2**20, 1.0, 2)
    first, again, other = (noise_for(seeded(label), 100, noise) for label in ("a", "a", "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_that_is_not_proven_is_refused() -> None:
    for wrong in ((0, 1.0, 1), (10, 0.0, 1), (10, 1.0, 0), (10, math.nan, 1), (10, math.inf, 1)):
        with pytest.raises(BoundError, match="above 0"):
            SumNoise(*wrong)
    for variance in (Fraction(0), Fraction(-1), Fraction(2**81)):
        with pytest.raises(BoundError, match="deviation"):
            discrete_gaussian(seeded("x"), variance, 1)


def test_a_coarse_scale_gets_more_noise_than_it_needs() -> None:
    coarse = SumNoise(10, 1.0, 100)
    assert coarse.variance == LEAST_SD**2 > Fraction(100, 100)
    assert coarse.total_sd(100) == 10 * LEAST_SD
    # What the sum of shares costs beyond one noise, by the proposition: far below what is added for it.
    tau = 10 * sum(math.exp(-2 * math.pi**2 * LEAST_SD**2 * k / (k + 1)) for k in range(1, 999))
    assert tau * 2**40 < 1e-50


def test_the_bound_follows_from_the_tail() -> None:
    bound = noise_bound(Fraction(100**2), 1000)
    assert bound > 100 * math.sqrt(2 * 64 * math.log(2))
    assert 2 * 1000 * math.exp(-((bound - 1) ** 2) / (2 * 100**2)) < 2.0**-63.9
    assert SumNoise(100, 1.0, 1).bound(1000) == bound


def test_vectors_are_shrunk_to_the_norm_and_never_lengthened() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e3, 1e200):
        values = rng.normal(size=500) * scale
        units, limit = bounded_integers(values, 2.5, 16)
        assert limit == int(2.5 * 2**16)
        assert sum(int(unit) ** 2 for unit in units) <= limit**2
        assert np.all(np.abs(units) <= np.abs(np.ldexp(values, 16)))
        cosine = units @ values / (np.linalg.norm(units) * (np.linalg.norm(values / scale) * scale))
        assert cosine > 0.99
    short = np.array([0.25, -0.5, 1e-9])
    assert bounded_integers(short, 10.0, 8)[0].tolist() == [64, -128, 0]


def test_vectors_that_cannot_be_bounded_are_refused() -> None:
    for wrong in (math.nan, math.inf):
        with pytest.raises(DataError, match="no finite numbers"):
            bounded_integers(np.array([1.0, wrong]), 1.0, 8)
    for norm, bits in ((0.0, 8), (math.inf, 8), (1.0, 50), (2.0**-20, 8)):
        with pytest.raises(BoundError, match="units"):
            bounded_integers(np.ones(2), norm, bits)


def test_poisson_samples_have_independent_rows() -> None:
    source = NoiseSource(seeded("rows"))
    drawn = [source.chosen(1000, 0.1) for _ in range(300)]
    sizes = np.array([len(one) for one in drawn])
    assert abs(sizes.mean() - 100) < 4 * math.sqrt(90 / 300)
    assert abs(sizes.var() / 90 - 1) < 0.5  # a fixed size would have none
    counts = np.bincount(np.concatenate(drawn), minlength=1000)
    assert stats.chisquare(counts).pvalue > LEAST_P
    assert source.chosen(7, 1.0).tolist() == list(range(7))
    with pytest.raises(BoundError, match="rate"):
        source.chosen(7, 0.0)
