"""Discrete Gaussian noise, drawn exactly, and what several members add to a sum so that the honest ones suffice.

The probability of an integer x is proportional to ``exp(-x^2 / (2 v))`` with a rational v, and that is the law that is
drawn from, not a rounded normal one: a proposal from the discrete Laplace law is kept with a probability of the form
``exp(-g)``, g rational. Such a coin asks whether a uniform number is below exp(-g). The number is drawn 64 bits at a
time; where these and a floating-point exp leave a margin of 2^-40 they decide, else integers bracket exp(-g) and draw
more bits until the bracket excludes one side. So floating point saves time and decides nothing that exact arithmetic
would decide otherwise.

Guarantees: for integer vectors, noise of standard deviation z times the largest L2 norm of what one unit adds costs
(alpha / 2 z^2) at every Renyi order alpha, as continuous Gaussian noise does, and leaks nothing through the lowest
bits of floats. Vectors are cut to that norm before the noise, checked in integers.

Not covered: the time a draw takes depends on what is drawn.

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020 (algorithms 1 to 3,
theorem 4, proposition 25); Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning
with Secure Aggregation", ICML 2021 (proposition 14); Mironov, CCS 2012 (why not floats).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy
from fedcredit.errors import BoundError, DataError

__all__ = [
    "LEAST_SD",
    "NoiseSource",
    "SumNoise",
    "bounded_integers",
    "discrete_gaussian",
    "noise_bound",
    "noise_for",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST_SD = 4
"""Least deviation of a member's noise, in units of the sum; where less would do, this is added. The sum of m discrete
Gaussians then differs from one of the whole variance by less than 10 m exp(-pi^2 4^2) a value at every Renyi order:
below 1e-50 in all for 2^40 values and 999 members (proposition 14 of Kairouz et al.)."""

_LARGEST_SD = 1 << 40  # proposals then stay far below 2^53, where floats hold integers exactly
_WORD = 64
_MARGIN = 2.0**-40  # relative; exp, the exponent and the conversion of the word are all better than 2^-42
_SPARE = 16
_TAIL_BITS = 64


@dataclass(frozen=True)
class SumNoise:
    """What one member adds to a sum.

    Args:
        sensitivity: Largest L2 norm of what one unit (a row, a bank) adds to the sum, in units of the sum. All values
            of the vector get the same noise, so their units should be alike: a count beside sums in units of 2^-16 has
            to be counted in units of 2^-16 too, or it drowns.
        multiplier: Standard deviation of the noise that must be in the sum, over the sensitivity.
        sources: Members whose noise is counted on: the fewest that an opened sum may have, less those that may
            collude and subtract their own.

    Raises:
        BoundError: no source, no noise, or a deviation above 2^40.
    """

    sensitivity: int
    multiplier: float
    sources: int

    def __post_init__(self) -> None:
        if self.sources < 1 or self.sensitivity < 1 or not (math.isfinite(self.multiplier) and self.multiplier > 0):
            raise BoundError(
                "dp.noise",
                f"noise of multiplier {self.multiplier} for sensitivity {self.sensitivity} from {self.sources} members "
                "was asked for; all three have to be above 0",
            )
        _check_variance(self.variance)

    @property
    def variance(self) -> Fraction:
        """Variance of one member's noise, exactly."""
        return max((Fraction(self.multiplier) * self.sensitivity) ** 2 / self.sources, Fraction(LEAST_SD**2))

    def total_sd(self, members: int) -> float:
        """Standard deviation of what so many members add together; more than is counted on, for want of some."""
        return math.sqrt(members * self.variance)

    def bound(self, length: int) -> int:
        """What the noise of one member stays within, as `noise_bound` has it."""
        return noise_bound(self.variance, length)


class NoiseSource:
    """Noise and random batches for private training, from uniform bytes.

    Args:
        entropy: The operating system's, or a stream bound to all that the result depends on (`RunSecret.entropy` of
            run, round and digests of parameters and rows): one stream must never serve two contents.
    """

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def noise(self, variance: Fraction, count: int) -> I64:
        """As `discrete_gaussian`."""
        return discrete_gaussian(self._entropy, variance, count)

    def chosen(self, rows: int, rate: float) -> I64:
        """A Poisson sample: each of ``rows`` rows by itself with probability ``rate``, rounded down to 2^-64.

        Returns:
            int64 numbers of the rows, ascending; may be empty.

        Raises:
            BoundError: a rate outside (0, 1].
        """
        if not 0 < rate <= 1:
            raise BoundError("dp.rate", f"a sampling rate of {rate} was asked for, it has to be above 0 and at most 1")
        words = np.frombuffer(self._entropy.take(8 * rows), dtype="<u8")
        threshold = math.floor(Fraction(rate) * (1 << _WORD))
        if threshold == 1 << _WORD:
            return np.arange(rows, dtype=np.int64)
        return np.flatnonzero(words < np.uint64(threshold)).astype(np.int64)


def noise_for(entropy: Entropy, length: int, noise: SumNoise) -> I64:
    """One member's noise for a sum; it adds it to its own vector before that is masked.

    Args:
        entropy: Bound to the run, the sum, a digest of the vector and ``noise``, so that the same vector gets the same
            noise and no two vectors do, nor one vector two noises that are alike.
        length: Number of values.
        noise: What to add.

    Returns:
        int64 (length,).
    """
    return discrete_gaussian(entropy, noise.variance, length)


def noise_bound(variance: Fraction, length: int) -> int:
    """What ``length`` draws all stay within, but for a chance of 2^-64.

    Source: Canonne, Kamath, Steinke, proposition 25: tails no heavier than those of the normal law.
    """
    _check_variance(variance)
    exponent = math.log(2 * max(1, length)) + _TAIL_BITS * math.log(2)
    return math.ceil(math.sqrt(2 * float(variance) * exponent)) + 1


def bounded_integers(values: F64, norm: float, bits: int) -> tuple[I64, int]:
    """Shrinks a vector to an L2 norm and puts it on a grid without making it any longer.

    Values are cut towards zero, so that rounding adds nothing to the sensitivity; the norm is checked in integers.

    Args:
        values: float64 (m,).
        norm: Largest L2 norm, > 0.
        bits: Units of the grid are 2^-bits.

    Returns:
        int64 (m,) in units, and the norm in units that the vector does not pass: the sensitivity.

    Raises:
        DataError: a value is no finite number.
        BoundError: the norm is no whole unit, or too many units.
    """
    if not np.all(np.isfinite(values)):
        raise DataError("dp.values", "a vector to be protected holds values that are no finite numbers")
    limit = math.floor(Fraction(norm) * (1 << bits)) if math.isfinite(norm) and norm > 0 else 0
    if not 1 <= limit <= _LARGEST_SD:
        raise BoundError("dp.scale", f"a norm of {norm} at {bits} bits is {limit} units, 1 to 2^40 are possible")
    largest = float(np.max(np.abs(values), initial=0.0))
    length = largest * float(np.linalg.norm(values / largest)) if largest else 0.0  # squares of large values overflow
    whole = math.ldexp(float(limit), -bits)  # below the norm itself: cut to whole units, nothing passes it
    factor = min(1.0, whole / length) if length else 1.0
    while True:  # more than once only where floats have rounded up
        units = np.trunc(np.ldexp(values * factor, bits)).astype(np.int64)
        if sum(unit * unit for unit in units.tolist()) <= limit * limit:
            return units, limit
        factor *= 1 - 2.0**-30


def discrete_gaussian(entropy: Entropy, variance: Fraction, count: int) -> I64:
    """Draws from the discrete Gaussian law of mean 0.

    Args:
        entropy: Uniform bytes; the same bytes give the same draws.
        variance: Its parameter, rational and above 0; the variance of the draws is no larger.
        count: Number of draws.

    Returns:
        int64 (count,).

    Raises:
        BoundError: a parameter not above 0, or above 2^80.

    Source: Canonne, Kamath, Steinke, algorithm 3.
    """
    _check_variance(variance)
    scale = math.isqrt(math.floor(variance)) + 1
    centre = variance / scale
    near, spread = float(centre), 2.0 * float(variance)
    kept = np.empty(0, dtype=np.int64)
    while len(kept) < count:
        # About half of the proposals pass both tests; what is too many is dropped.
        proposals = _discrete_laplace(entropy, scale, 5 * (count - len(kept)) // 4 + _SPARE)
        sizes = np.abs(proposals)

        def exact(place: int, sizes: I64 = sizes) -> Fraction:
            return (int(sizes[place]) - centre) ** 2 / (2 * variance)

        passed = _bernoulli_exp(entropy, (sizes - near) ** 2 / spread, exact)
        kept = np.concatenate([kept, proposals[passed]])
    return kept[:count]


def _discrete_laplace(entropy: Entropy, scale: int, count: int) -> I64:
    """At least some draws from the law proportional to exp(-|x| / scale); about ``count``."""
    low = _uniform_below(entropy, scale, 2 * count)
    low = low[_bernoulli_exp(entropy, low / scale, lambda place: Fraction(int(low[place]), scale))]
    whole = _geometric(entropy, len(low))
    sizes = low + scale * whole
    signs = np.frombuffer(entropy.take(len(sizes)), dtype=np.uint8) & 1
    # Zero has two signs; one of them is refused, so that zero is not drawn twice as often.
    wanted = ~((signs == 1) & (sizes == 0))
    return np.asarray(np.where(signs == 1, -sizes, sizes)[wanted], dtype=np.int64)


def _geometric(entropy: Entropy, count: int) -> I64:
    """Successes before the first failure of coins that fall with exp(-1)."""
    found = np.zeros(count, dtype=np.int64)
    alive = np.arange(count)
    while len(alive):
        alive = alive[_bernoulli_exp(entropy, np.ones(len(alive)), lambda _: Fraction(1))]
        found[alive] += 1
    return found


def _uniform_below(entropy: Entropy, bound: int, count: int) -> I64:
    """Independent integers uniform in [0, bound), by rejection of masked words."""
    mask = np.uint64((1 << (bound - 1).bit_length()) - 1)
    found = np.empty(0, dtype=np.uint64)
    while len(found) < count:
        words = np.frombuffer(entropy.take(8 * (count - len(found))), dtype="<u8") & mask
        found = np.concatenate([found, words[words < np.uint64(bound)]])
    return found.astype(np.int64)


def _bernoulli_exp(entropy: Entropy, rates: F64, exact: Callable[[int], Fraction]) -> Flags:
    """Coins that fall true with probability exp(-rate).

    Args:
        entropy: Uniform bytes.
        rates: float64 (m,), from 0 up, each within 2^-46 times (1 + rate) of the exact one.
        exact: The exact rate at a place.
    """
    words = np.frombuffer(entropy.take(8 * len(rates)), dtype="<u8")
    drawn = words.astype(np.float64)
    # Beyond a rate of 64 the float is inexact, and also below one unit: the added unit then sends words 0 and 1 to the
    # integers and decides the rest rightly.
    likely = np.exp(-rates) * 2.0**_WORD
    passed = drawn < likely * (1 - _MARGIN) - 1
    unsure = ~passed & (drawn <= likely * (1 + _MARGIN) + 1)
    for place in np.flatnonzero(unsure).tolist():
        passed[place] = _falls_below(entropy, int(words[place]), exact(place))
    return np.asarray(passed, dtype=np.bool_)


def _falls_below(entropy: Entropy, word: int, rate: Fraction) -> bool:
    """Whether a uniform number that begins with ``word`` is below exp(-rate), by integers alone."""
    bits = _WORD
    while True:
        low, high = _exp_bracket(rate, bits)
        if word + 1 <= low:
            return True
        if word >= high:
            return False
        word = (word << _WORD) | int.from_bytes(entropy.take(_WORD // 8), "little")
        bits += _WORD


def _exp_bracket(rate: Fraction, bits: int) -> tuple[int, int]:
    """Integers low <= exp(-rate) 2^bits <= high, at most 2 apart."""
    halvings = max(0, math.ceil(rate)).bit_length()
    places = bits + 2 * halvings + 16
    one = 1 << places
    part = rate / (1 << halvings)  # below 1, so that the terms of the series fall and alternate
    numerator, denominator = part.numerator, part.denominator
    low = high = term_low = term_high = one
    order = 0
    while term_high > 1:
        order += 1
        term_low = term_low * numerator // (denominator * order)
        term_high = -(-term_high * numerator // (denominator * order))
        # A partial sum that ends with a subtracted term is too low, the next one too high.
        if order % 2:
            low, high = low - term_high, high - term_low
        else:
            low, high = low + term_low, high + term_high
    low, high = max(0, low - term_high), high + term_high
    for _ in range(halvings):
        low, high = low * low >> places, -(-high * high >> places)
    return low >> (places - bits), -(-high >> (places - bits))


def _check_variance(variance: Fraction) -> None:
    if not 0 < variance <= _LARGEST_SD**2:
        raise BoundError(
            "dp.noise",
            f"noise of deviation {math.sqrt(max(Fraction(0), variance)):.3g} was asked for, above 0 to 2^40 is right",
        )
