"""The fixed numbers of the slots are derived again, and the proof of the parameters is calculated."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from fedcredit.crypto.bfv_parameters import MAX_PLAIN_BITS, BfvParameters, parameters_of
from fedcredit.crypto.seal_format import DEGREE, PRIMES
from fedcredit.crypto.slots_parameters import (
    COLUMN_BOUND,
    FLOOD_BITS,
    MAX_PARTS,
    MAX_ROWS,
    MODULUS,
    NOISE_BOUND,
    PARAMETERS,
    VALUE_BOUND,
    blocks_of,
    statistical_leak_log2,
)
from fedcredit.errors import BoundError

BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)  # decide below 3.3 * 10^24: Sorenson and Webster, 2015


def is_prime(number: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in BASES:
        chain = [pow(base, odd << k, number) for k in range(twos)]
        if base < number and chain[0] != 1 and number - 1 not in chain:
            return False
    return True


def largest(bits: int, skipped: int = 0) -> int:
    """The largest prime below 2^bits that is 1 modulo 2N, after some larger ones."""
    candidate = (1 << bits) - 2 * DEGREE + 1
    while True:
        if is_prime(candidate):
            if not skipped:
                return candidate
            skipped -= 1
        candidate -= 2 * DEGREE


def test_the_fixed_numbers_are_derived() -> None:
    assert largest(39) == MODULUS
    assert BfvParameters((largest(60, 1), largest(60), largest(40), largest(20)), MODULUS) == PARAMETERS
    assert math.prod(PARAMETERS.primes).bit_length() == math.prod(PRIMES).bit_length() == 180
    assert VALUE_BOUND == MODULUS // 2 > (1 << 22) * 100 * 100 > 1 << 30


def test_the_noise_stays_below_its_bound() -> None:
    fresh = Fraction(43, 2)  # 21 of the error and one half of scaling
    of_slots = fresh * DEGREE * (MODULUS // 2)
    of_columns = fresh * MAX_ROWS * COLUMN_BOUND
    added = 21 * (2 * DEGREE + 1) + Fraction(1, 2)
    assert max(of_slots, of_columns) + added < NOISE_BOUND


def test_decoding_is_exact_for_as_many_parts_as_may_be_added() -> None:
    first, *dropped = PARAMETERS.data
    divisor = math.prod(dropped)
    rounding = Fraction(DEGREE + 1, 2) * (1 + Fraction(1, dropped[0]))  # two switches, the second divides the first
    part = Fraction((1 << FLOOD_BITS) + NOISE_BOUND, divisor) + rounding
    assert MAX_PARTS * part < Fraction(first, 2 * MODULUS)


def test_the_leak_is_that_of_the_formula() -> None:
    width = FLOOD_BITS + 1
    one = statistical_leak_log2(DEGREE, selected=1)
    mean = math.sqrt(10.5 * DEGREE) * MODULUS / 2 + DEGREE * MODULUS / 4
    assert one == pytest.approx(math.log2(DEGREE * mean) - width, abs=1e-6)
    assert statistical_leak_log2(DEGREE, selected=2) == pytest.approx(one + 1)
    assert statistical_leak_log2(DEGREE + 1, selected=1) == pytest.approx(one + 1)
    sums = statistical_leak_log2(10_000, selected=0, sums=8, column_bound=100)
    assert sums == pytest.approx(math.log2(8 * ((math.sqrt(105_000) + 5000) * 100 + (1 << 19))) - width)
    assert statistical_leak_log2(5, selected=0) == -math.inf


def test_a_run_of_a_district_says_less_than_its_target() -> None:
    assert statistical_leak_log2(210_000, selected=60, sums=60 * 60) < -41
    assert statistical_leak_log2(MAX_ROWS, selected=1) < -42
    worst = Fraction(NOISE_BOUND, 1 << (FLOOD_BITS + 1))  # of a coefficient, whatever the errors
    assert worst < Fraction(1, 1 << 58)


@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (8192, 1), (8193, 2), (1 << 22, 512)])
def test_blocks(rows: int, blocks: int) -> None:
    assert blocks_of(rows) == blocks


@pytest.mark.parametrize("rows", [0, -1, (1 << 22) + 1])
def test_rows_that_are_not_proven_are_refused(rows: int) -> None:
    with pytest.raises(BoundError, match="are proven"):
        blocks_of(rows)


def test_sizes_follow_from_the_primes() -> None:
    assert PARAMETERS.plain_bits == 39
    assert parameters_of(MAX_PLAIN_BITS).plain_bits == MAX_PLAIN_BITS
    assert PARAMETERS.seeded_size == DEGREE * (15 + 5) + 64  # two of 7.5 bytes, one of 5
    assert PARAMETERS.key_size == DEGREE * (15 + 5 + 3) + 64
    assert parameters_of(20).seeded_size == DEGREE * 15 + 64
    assert parameters_of(PARAMETERS) is PARAMETERS
