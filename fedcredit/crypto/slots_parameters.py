"""Parameters of the selection of rows under encryption, and the proof that its results are exact and say no more.

Ring degree N = 8192. Data primes of 60, 60 and 40 bits, a key-level prime of 20: 180 bits together, as profile
bfv-8192 has. The third data prime is there for the flood alone. Let q be the product of the data primes, q_0 the one
that is left by the switch, D = q / q_0 (above 2^99.9), t = `MODULUS`, a prime below 2^39 with t = 1 mod 2N.

* Range. Results are integers in +-`VALUE_BOUND` = +-(t - 1)/2, above 2^37.9: totals of a row up to 2^30, sums over
  2^22 rows of products of two values up to 100 (2^35.3).
* Noise. A fresh coefficient has error at most 21 + 1/2, the half from scaling the message by the rational q/t. A
  product by a polynomial y multiplies it by at most ``|y|_1``:
    - of a selection, y holds one value a slot and any coefficients up to t/2: ``z <= 21.5 * N * t/2 < 2^55.5``;
    - of a weighted sum, y is the column itself, ``|y_i| <= COLUMN_BOUND = 2^20``: over all rows ``z <= 21.5 * 2^42``.
  The fresh encryption that is added has error below 2^19 and 1/2 for scaling its message: ``NOISE_BOUND = 2^56``.
* Flood. Uniform in [-2^114, 2^114) on every coefficient that leaves, before the switch.
* Decoding. The switch divides by D and adds at most (N + 1)/2 + 1: a part has error at most
  ``2^114/D + 2^56/D + 4098 < 20_500``. Of `MAX_PARTS` = 32 parts added after their switch it is below
  656_000 < q_0 / 2t = 1_048_576. A wrap modulo t costs nothing, because q_0/t times t is q_0.
* Hiding. What the owner of the key sees of an answer is its second polynomial and, with its key, the phase
  ``(q/t) m + z + flood``. The flood hides z up to ``E|z| / 2^115`` a coefficient, see `statistical_leak_log2`; then the
  second polynomial is all that depends on the answerer's fresh secret, and is uniform by ring-LWE.

Source: docs/adr/0011-slots.md.
"""

from __future__ import annotations

import math

from fedcredit.crypto.bfv_parameters import BfvParameters
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.errors import BoundError

__all__ = [
    "COLUMN_BOUND",
    "FLOOD_BITS",
    "MAX_PARTS",
    "MAX_ROWS",
    "MODULUS",
    "NOISE_BOUND",
    "PARAMETERS",
    "VALUE_BOUND",
    "blocks_of",
    "statistical_leak_log2",
]

MODULUS = 549_755_731_969
"""Plain modulus t: the largest prime below 2^39 that is 1 modulo 2N."""

PARAMETERS = BfvParameters((1152921504606748673, 1152921504606830593, 1099511480321, 1032193), MODULUS)
"""Primes of 60 + 60 + 40 data bits and a key level of 20: the largest below each power of two that are 1 modulo 2N."""

VALUE_BOUND = (MODULUS - 1) // 2
"""Largest absolute integer that is told from all others modulo t."""

MAX_ROWS = 1 << 22
"""Largest number of rows."""

COLUMN_BOUND = 1 << 20
"""Largest absolute value of a column of a weighted sum."""

MAX_PARTS = 32
"""Most answers that may be added after their switch."""

FLOOD_BITS = 114
"""The flood is uniform in [-2^114, 2^114)."""

NOISE_BOUND = 1 << 56
"""Largest absolute noise of an answer before its flood."""

_VARIANCE = 10.5  # of one coefficient of an error of the library
_FRESH_BOUND = 1 << 19


def blocks_of(rows: int) -> int:
    """Ciphertexts that hold one value a row.

    Raises:
        BoundError: no rows, or more than are proven.
    """
    if not 1 <= rows <= MAX_ROWS:
        raise BoundError("slots.rows", f"{rows} rows; between 1 and {MAX_ROWS} are proven")
    return -(-rows // DEGREE)


def statistical_leak_log2(rows: int, *, selected: int, sums: int = 0, column_bound: int = COLUMN_BOUND) -> float:
    """log2 of a bound on what all answers to one key say beyond their results, as statistical distance.

    A flood of 2^115 values hides a noise z up to ``E|z| / 2^115``; distances add up over all coefficients that leave.
    For a selection ``E|z| <= sqrt(10.5 N) t/2 + N t/4``: the errors are random, the halves of scaling may be anything.
    For a sum ``E|z| <= sqrt(10.5 n) Y + n Y/2`` with Y the largest absolute value of its column. It holds for an owner
    that encrypts as it should; one that crafts its errors is bounded by the residues of its answers, not by this.

    Args:
        rows: Number of rows, n.
        selected: Vectors answered by `select`.
        sums: Sums answered by `weighted_sums`.
        column_bound: Largest absolute value of their columns.

    Returns:
        log2 of the distance; minus infinity where nothing was answered.

    Source: docs/adr/0011-slots.md; Goldwasser et al., ICS 2010, Lemma 1 (flooding).
    """
    half = MODULUS / 2
    by_slots = math.sqrt(_VARIANCE * DEGREE) * half + DEGREE * half / 2 + _FRESH_BOUND
    by_columns = (math.sqrt(_VARIANCE * rows) + rows / 2) * column_bound + _FRESH_BOUND
    total = selected * blocks_of(rows) * DEGREE * by_slots + sums * by_columns
    return math.log2(total) - (FLOOD_BITS + 1) if total else -math.inf
