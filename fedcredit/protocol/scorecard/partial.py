"""A feature holder's integer total of each row; pure, so that the oracle computes the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fedcredit.crypto.prg import Entropy
from fedcredit.protocol.scorecard.plan import FitPlan

__all__ = ["partial_totals", "perturb", "total_bits"]

Ints = NDArray[np.int64]

_FRACTION_BITS = 53  # a uniform double; the tail it cannot reach has probability 2^-53


def partial_totals(codes: Sequence[NDArray[np.int32]], tables: Sequence[Ints], rows: int) -> Ints:
    """Sum over features of each row's entry; int64 (rows,)."""
    total = np.zeros(rows, np.int64)
    for code, table in zip(codes, tables, strict=True):
        total += table[code]
    return total


def perturb(total: Ints, plan: FitPlan, replayable: Entropy) -> Ints:
    """Noise and random rounding of a fit's totals, as the plan says; unbiased.

    Args:
        total: int64 (rows,), exact.
        plan: Noise and step in units.
        replayable: A holder's own seed, escrowed: an auditor can repeat it.
    """
    values = total.astype(np.float64)
    if plan.noise_units > 0:
        values += plan.noise_units * ndtri(_uniform(replayable, len(total)))
    if plan.step_units > 1:
        steps = values / plan.step_units
        floor = np.floor(steps)
        return ((floor + (_uniform(replayable, len(total)) < steps - floor)) * plan.step_units).astype(np.int64)
    return np.rint(values).astype(np.int64)


def total_bits(tables: Sequence[Ints], step: int) -> float:
    """Bits a total can disclose about a row at most: the logarithm of how many multiples of ``step`` it can become."""
    low, high = sum(int(table.min()) for table in tables), sum(int(table.max()) for table in tables)
    return math.log2(-(-high // step) - low // step + 1)


def _uniform(entropy: Entropy, count: int) -> NDArray[np.float64]:
    words = np.frombuffer(entropy.take(8 * count), dtype="<u8") >> np.uint64(64 - _FRACTION_BITS)
    return (words.astype(np.float64) + 0.5) / float(1 << _FRACTION_BITS)
