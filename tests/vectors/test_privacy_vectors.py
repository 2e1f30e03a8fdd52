"""Draws from known bytes, so that an auditor's replay gives the same noise on every machine."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fedcredit.crypto.discrete_gaussian import NoiseSource, discrete_gaussian
from fedcredit.crypto.prg import UnsafeSeededEntropy

VECTORS = [
    (Fraction(1, 3), [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, -1, 0]),
    (Fraction(22, 7), [-1, 0, -5, -1, 0, -1, 1, 0, -1, 2, -2, 2]),
    (
        Fraction(2**40),
        [2440735, 92609, 280140, 332826, -1006509, 65477, 793984, 302985, 1228398, 667726, 157382, -1866571],
    ),
    (
        Fraction(3**45, 7**9),
        [
            3851699,
            8133802,
            -12038660,
            -4527130,
            -2057826,
            14565034,
            12534902,
            -2891136,
            3005556,
            9697973,
            -3997956,
            375547,
        ],
    ),
]


@pytest.mark.parametrize(("variance", "drawn"), VECTORS)
def test_known_bytes_give_known_draws(variance: Fraction, drawn: list[int]) -> None:
    assert discrete_gaussian(UnsafeSeededEntropy(bytes(range(32))), variance, len(drawn)).tolist() == drawn


def test_known_bytes_give_known_rows() -> None:
    assert NoiseSource(UnsafeSeededEntropy(bytes(range(32)))).chosen(60, 0.1).tolist() == [
        10,
        13,
        14,
        18,
        19,
        28,
        48,
        50,
        51,
    ]
