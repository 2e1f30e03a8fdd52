"""Bounds that hold for every vector, share and event."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedcredit.crypto.discrete_gaussian import LEAST_SD, SumNoise, bounded_integers
from fedcredit.crypto.noise_plan import noise_sources
from fedcredit.crypto.secure_sum import threshold
from fedcredit.governance.privacy_accounting import Event, epsilon_of, read_event
from fedcredit.kernels.nn_private import GRID_BITS, _clipped
from fedcredit.spec.horizontal import SecureSumSection

VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30)
ROWS = st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=4, max_size=4)


@given(VALUES, st.floats(1e-3, 1e3), st.integers(12, 30))
def test_no_vector_passes_the_norm_or_grows(values: list[float], norm: float, bits: int) -> None:
    units, most = bounded_integers(np.array(values), norm, bits)
    assert most == math.floor(Fraction(norm) * 2**bits)
    assert sum(unit * unit for unit in units.tolist()) <= most * most
    for unit, value in zip(units.tolist(), values, strict=True):
        assert abs(unit) <= abs(Fraction(value)) * 2**bits
        assert unit == 0 or (unit > 0) == (value > 0)


@given(st.lists(ROWS, min_size=1, max_size=8), st.floats(1e-6, 1e6))
def test_no_row_passes_the_norm(rows: list[list[float]], norm: float) -> None:
    for row, given_ in zip(_clipped(np.array(rows, dtype=np.float32), norm).tolist(), rows, strict=True):
        assert all(value == int(value) for value in row)
        assert sum(int(value) ** 2 for value in row) <= 4**GRID_BITS
        assert all(map(math.isfinite, given_)) or not any(row)


@given(st.integers(1, 2**30), st.floats(0.01, 100), st.integers(3, 999), st.integers(1, 500), st.integers(3, 900))
def test_honest_survivors_noise_suffices(
    sensitivity: int, multiplier: float, members: int, colluding: int, least: int
) -> None:
    assume(colluding <= members - 2 and least <= members)
    section = SecureSumSection(min_banks=least, colluding=colluding)
    sources = noise_sources(members, section)
    honest, shares = members - colluding, threshold(members, colluding, max(least, colluding + 2, 3))
    fewest = -(-honest * (2 * shares - members - colluding) // (shares - colluding))  # ADR 13, 2: all that is proven
    assert 1 <= sources <= fewest
    noise = SumNoise(sensitivity, multiplier, sources)
    assert noise.variance * fewest >= (Fraction(multiplier) * sensitivity) ** 2
    assert noise.variance >= LEAST_SD**2


@settings(deadline=None, max_examples=8)
@given(st.floats(0.5, 20), st.floats(0.001, 1), st.integers(1, 50), st.integers(1, 50))
def test_more_releases_cost_more_and_records_are_read_back(
    multiplier: float, rate: float, steps: int, times: int
) -> None:
    event = Event("update", "sampled_gaussian", multiplier, rate, steps, times)
    assert read_event(event.record()) == event
    alone, twice = epsilon_of([event], 1e-5), epsilon_of([event, event], 1e-5)
    assert alone <= twice <= 2 * alone + 1e-9 or alone == 0
    assert epsilon_of([event], 1e-6) >= alone
