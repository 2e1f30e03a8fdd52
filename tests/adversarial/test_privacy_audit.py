"""An attacker who knows everything but one unit, played many times: it must not do better than epsilon allows.

The bound on epsilon that follows from what it gets right (95 %, Clopper and Pearson) has to stay below what is counted;
with less noise or without clipping it has to rise above. A pass proves no guarantee: it shows that nothing is grossly
wrong between the mechanism and its figure.

Source: Jagielski, Ullman, Oprea, NeurIPS 2020 (auditing); Kairouz, Oh, Viswanath, ICML 2015.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from fedcredit.crypto.discrete_gaussian import NoiseSource, SumNoise, bounded_integers, noise_for
from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.governance.privacy_accounting import Event, epsilon_of
from fedcredit.kernels import nn_private
from fedcredit.kernels.nn import Network, NetworkShape
from fedcredit.kernels.nn_private import PrivateRules, PrivateSteps

DELTA = 1e-5


def seen_epsilon(without: np.ndarray, present: np.ndarray) -> float:
    """Lower bound on epsilon from a threshold chosen on one half and judged on the other."""
    half = len(without) // 2
    limits = np.quantile(np.concatenate([without[:half], present[:half]]), np.linspace(0.02, 0.98, 97))
    chosen = max(limits, key=lambda one: abs((present[:half] > one).mean() - (without[:half] > one).mean()))
    best = 0.0
    for limit in (chosen, np.quantile(without[:half], 0.995), np.quantile(present[:half], 0.005)):
        false, missed = int((without[half:] > limit).sum()), int((present[half:] <= limit).sum())
        high_false, high_missed = (
            float(stats.beta.ppf(0.975, count + 1, half - count)) if count < half else 1.0 for count in (false, missed)
        )
        for wrong, other in ((high_false, high_missed), (high_missed, high_false)):
            if 1 - DELTA - other > 0:
                best = max(best, math.log((1 - DELTA - other) / wrong))
    return best


def sums(noise: SumNoise, vector: np.ndarray, members: int, label: str) -> np.ndarray:
    """Opened sums of one value, many times; colluders have taken their own noise off."""
    drawn = [
        noise_for(UnsafeSeededEntropy(bytes(32)).child(f"{label}/{member}"), 20_000, noise) for member in range(members)
    ]
    return np.asarray(np.sum(drawn, axis=0) + vector, dtype=np.float64)


def test_a_banks_update_cannot_be_told_from_none_better_than_counted() -> None:
    claimed = epsilon_of([Event("update", "discrete_sum", 1.0)], DELTA)
    units, most = bounded_integers(np.array([1e6]), 1.0, 16)  # as large an update as may be brought
    noise = SumNoise(most, 1.0, sources=2)
    honest = seen_epsilon(sums(noise, np.zeros(1), 2, "no"), sums(noise, units, 2, "yes"))
    assert 1.0 < honest < claimed
    # One honest bank's noise in place of two, a quarter of the noise, and an update that was not cut.
    weak = SumNoise(most, 0.25, sources=2)
    assert seen_epsilon(sums(weak, np.zeros(1), 2, "no"), sums(weak, units, 2, "yes")) > claimed
    assert seen_epsilon(sums(noise, np.zeros(1), 2, "no"), sums(noise, units * 6, 2, "yes")) > claimed
    alone = seen_epsilon(sums(noise, np.zeros(1), 1, "no"), sums(noise, units, 1, "yes"))
    assert alone > honest


def scores(*, present: bool, steps: int) -> np.ndarray:
    """How far single private gradients point to one row."""
    network = Network(NetworkShape("logistic", 4))
    network.set_parameters(np.zeros(5))
    numbers = torch.zeros((6, 4))
    numbers[1:, 0] = 0.1
    numbers[0, 3] = 50.0  # the row in question points where no other does
    bad = torch.ones(6)
    rows = slice(0 if present else 1, None)
    source = NoiseSource(UnsafeSeededEntropy(bytes(32)).child(f"steps/{present}"))
    private = PrivateSteps(network, PrivateRules(2.0, 0.5, 1.0, steps), source)
    found = [
        private.gradients(numbers[rows], torch.zeros((6, 0), dtype=torch.int64)[rows], bad[rows])
        for _ in private.batches(6)
    ]
    return -np.array([float(one[0][0, 3]) for one in found])


@pytest.mark.slow
def test_a_row_cannot_be_told_from_none_better_than_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = epsilon_of([Event("update", "sampled_gaussian", 2.0)], DELTA)
    honest = seen_epsilon(scores(present=False, steps=200), scores(present=True, steps=200))
    assert honest < claimed
    with monkeypatch.context() as patch:
        patch.setattr(NoiseSource, "noise", lambda self, variance, count: np.zeros(count, dtype=np.int64))
        assert seen_epsilon(scores(present=False, steps=200), scores(present=True, steps=200)) > claimed
    with monkeypatch.context() as patch:
        patch.setattr(nn_private, "_clipped", lambda rows, norm: np.trunc(rows.astype(np.float64) / norm * 2**20))
        assert seen_epsilon(scores(present=False, steps=200), scores(present=True, steps=200)) > claimed


def test_the_lowest_bits_say_nothing() -> None:
    """With floats, a sum's lowest bits told which of two values was in it (Mironov 2012); whole numbers have none."""
    source = NoiseSource(UnsafeSeededEntropy(bytes(32)).child("bits"))
    noise = source.noise(Fraction(2**20), 40_000)
    for bit in range(4):
        ones = int(((noise >> bit) & 1).sum()), int((((noise + 1) >> bit) & 1).sum())
        assert all(stats.binomtest(one, 40_000).pvalue > 1e-4 for one in ones)
