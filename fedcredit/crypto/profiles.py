"""Parameters of the encrypted group sum, derived in this one place from the sizes and the value bounds of a run.

Let n rows, ``|v| <= V`` per row, weights ``|w| <= W`` (1 for plain groupings), ``A`` the largest offset an answerer may
add to a sum. Every output sum S, bins of any skew, has ``|S| <= M = n*V*W + A``. ``sum_bits`` T is the smallest
number with ``M <= 2^(T-1) - 1``. It is kept minimal because an answer carries T bits whatever a hostile asker sends.

Profile ``rlwe-8192`` (`fedcredit.crypto.hinted`), R = Z[X]/(X^N + 1), N = 8192, q the product of five 27-bit primes
with p = 1 mod 2N, all secrets and errors centred binomial with eta = 21, ``delta = floor(q / 2^T)``:

* Noise. An output carries ``sum_i w_i e_i`` over n rows and coefficient N-1 of ``eps_1 u + eps_2 u'``, every factor at
  most 21: ``|noise| <= noise_bound = 21*n*W + 2*N*21^2``, always.
* Flood. Uniform in [0, flood_width) with ``flood_width = delta - 2*noise_bound``. So ``noise_bound + noise + flood``
  lies in [0, delta - 1].
* Decoding. The asker adds noise_bound and sees ``delta*S + r``, ``0 <= r < delta``, modulo q. By the bound on S this
  lies in ``[-delta*(2^(T-1)-1), delta*2^(T-1) - 1]``, inside (-q/2, q/2) since ``delta*2^T <= q``: the centred residue
  is the integer itself and its floor division by delta is S. The failure probability is 0.
* Hiding. For a fixed noise z the distance between flood and flood + z is ``|z| / flood_width`` exactly; see
  `statistical_leak_log2`. T <= 56 keeps it under 2^-40 over ten million answers at a million rows.

Profile ``bfv-8192`` (`fedcredit.crypto.bfv_sum`), N = 8192, coefficient primes 60+60+60 (the last is SEAL's key-level
prime), plain modulus 2^T. Fresh noise at most 21 + 1/2 per coefficient; a product with plaintexts whose places are at
most N to a row: ``noise_bound = 22*n*W*N``; fresh encryption of zero ``21*(2N + 1)``, mask 1/2: together below 2^59,
hence below 1 after the switch to one prime, where rounding adds at most ``(N + 1)/2``. Decoding is exact while that is
under ``2^59.99 / 2^(T+1)``: T <= 46.

Profile ``unsafe-plaintext`` encrypts nothing; its T is bounded by int64 alone.

Source: HE security standard (2018) tables and ePrint 2024/463 (docs/adr/0002-hinted-group-sum.md, 0003).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from fedcredit.crypto.prg import CBD_ETA
from fedcredit.errors import BoundError

__all__ = [
    "BFV_8192",
    "PROFILES",
    "RLWE_8192",
    "UNSAFE_PLAINTEXT",
    "GroupSumParameters",
    "Profile",
    "SumCapacity",
    "capacity",
    "derive",
    "statistical_leak_log2",
    "sum_capacity",
]

RLWE_8192 = "rlwe-8192"
BFV_8192 = "bfv-8192"
UNSAFE_PLAINTEXT = "unsafe-plaintext"

_MIN_SUM_BITS = 16  # so that a sum always has the room of a packed pair of small counts; also keeps SEAL's modulus sane
_MAX_ROWS = 1 << 26  # the kernels' 64-bit accumulators are proven up to here
_MAX_WEIGHT = 1 << 24  # below every prime, and a tile of products fits the kernels' accumulators
_SWITCH_LOG2 = 60  # bits of the prime that bfv-8192 drops before it answers


@dataclass(frozen=True)
class Profile:
    """What is fixed by a profile's name.

    Args:
        name: As written in the spec.
        scheme: Name for reports.
        degree: Ring degree N; 0 where there is no ring.
        primes: NTT primes whose product is q; empty where the library chooses them.
        coefficient_bits: Bits of each coefficient prime.
        max_sum_bits: Largest T that is proven.
        security_bits: Classical security against the best attack known, by the tables cited; 0 for none.
    """

    name: str
    scheme: str
    degree: int
    primes: tuple[int, ...]
    coefficient_bits: tuple[int, ...]
    max_sum_bits: int
    security_bits: int


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name=RLWE_8192,
                scheme="RLWE with hints",
                degree=8192,
                # The five largest primes below 2^27 that are 1 modulo 16384; a test derives them again.
                primes=(133_857_281, 133_644_289, 133_611_521, 133_513_217, 133_251_073),
                coefficient_bits=(27, 27, 27, 27, 27),
                max_sum_bits=56,
                security_bits=128,
            ),
            Profile(
                name=BFV_8192,
                scheme="BFV",
                degree=8192,
                primes=(),
                coefficient_bits=(60, 60, 60),
                max_sum_bits=46,
                security_bits=128,
            ),
            Profile(
                name=UNSAFE_PLAINTEXT,
                scheme="none",
                degree=0,
                primes=(),
                coefficient_bits=(),
                max_sum_bits=63,
                security_bits=0,
            ),
        )
    }
)
"""All profiles by name."""


@dataclass(frozen=True)
class GroupSumParameters:
    """Everything both sides must agree on; made by `derive` only.

    Args:
        profile: Name of the profile.
        rows: Number of rows n.
        value_bound: Largest absolute value of a row, V.
        weight_bound: Largest absolute weight of an output column, W.
        sum_slack: Largest absolute offset an answerer may add to a sum, A.
        degree: Ring degree N.
        primes: NTT primes; empty where the library chooses them.
        coefficient_bits: Bits of each coefficient prime.
        sum_bits: T; sums lie in +-(2^(T-1) - 1). The plain modulus of bfv-8192 is 2^T.
        delta: floor(q / 2^T); 0 where the library scales.
        noise_bound: Largest absolute noise of an answer.
        flood_width: The flood is uniform in [0, flood_width); 0 where there is none.
    """

    profile: str
    rows: int
    value_bound: int
    weight_bound: int
    sum_slack: int
    degree: int
    primes: tuple[int, ...]
    coefficient_bits: tuple[int, ...]
    sum_bits: int
    delta: int
    noise_bound: int
    flood_width: int

    @property
    def sum_bound(self) -> int:
        """Largest absolute sum, proven: n*V*W + A."""
        return self.rows * self.value_bound * self.weight_bound + self.sum_slack

    @property
    def modulus(self) -> int:
        """q, where the primes are known; else 1."""
        return math.prod(self.primes)

    @property
    def blocks(self) -> int:
        """Number of ring elements that hold one vector at one row a coefficient."""
        return -(-self.rows // self.degree) if self.degree else 1

    @property
    def encrypted(self) -> bool:
        """Whether anything is hidden at all."""
        return self.profile != UNSAFE_PLAINTEXT

    def digest(self) -> bytes:
        """32 bytes that name these parameters; part of the run digest, of the reference seed and of every header."""
        text = ";".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))
        return hashlib.sha256(b"fedcredit/group-sum/parameters/v1;" + text.encode()).digest()


@dataclass(frozen=True)
class SumCapacity:
    """What fits: sums in +-(2^(sum_bits - 1) - 1), hence values up to ``value_bound`` a row."""

    sum_bits: int
    value_bound: int


def sum_capacity(profile: str, rows: int, weight_bound: int = 1, sum_slack: int = 0) -> SumCapacity:
    """The most a profile can hold for these sizes; ``sum_bits`` is what `packing.plan` asks for.

    Raises:
        BoundError: unknown profile, sizes that are no sizes, or not even values of 1 fit.
    """
    fixed = _profile(profile)
    _check_sizes(rows, weight_bound, sum_slack)
    value_bound = ((1 << (fixed.max_sum_bits - 1)) - 1 - sum_slack) // (rows * weight_bound)
    if value_bound < 1:
        raise BoundError(
            "profile.capacity",
            f"{profile}: {rows} rows with weights up to {weight_bound} leave no room in {fixed.max_sum_bits} bits",
        )
    return SumCapacity(fixed.max_sum_bits, value_bound)


def capacity(profile: str, rows: int, weight_bound: int = 1) -> int:
    """Largest ``value_bound`` a profile can hold for these sizes."""
    return sum_capacity(profile, rows, weight_bound).value_bound


def derive(profile: str, rows: int, value_bound: int, weight_bound: int = 1, sum_slack: int = 0) -> GroupSumParameters:
    """Derives the parameters, before any key exists; the proof is in the module's docstring.

    Args:
        profile: A name in `PROFILES`.
        rows: Number of rows, in [1, 2^26].
        value_bound: Largest absolute value of a row, at least 1.
        weight_bound: Largest absolute weight of an output column, in [1, 2^24]; 1 for plain groupings.
        sum_slack: Largest absolute offset (noise) an answerer may add to a sum.

    Raises:
        BoundError: unknown profile, or sums that are not proven to decode; says what would fit.
    """
    fixed = _profile(profile)
    fits = sum_capacity(profile, rows, weight_bound, sum_slack).value_bound
    if not 1 <= value_bound <= fits:
        raise BoundError(
            "profile.value-bound",
            f"{profile}: values up to {value_bound} over {rows} rows with weights up to {weight_bound} do not fit; "
            f"the value bound must lie in 1..{fits}",
        )
    largest = rows * value_bound * weight_bound + sum_slack
    sum_bits = max(_MIN_SUM_BITS, largest.bit_length() + 1)
    delta = math.prod(fixed.primes) >> sum_bits if fixed.primes else 0
    noise_bound = _noise_bound(fixed, rows, weight_bound)
    flood_width = delta - 2 * noise_bound if fixed.primes else 0
    if (fixed.primes and flood_width <= 0) or (profile == BFV_8192 and noise_bound >= 1 << (_SWITCH_LOG2 - 1)):
        raise BoundError("profile.noise", f"{profile}: weights up to {weight_bound} over {rows} rows drown the sums")
    return GroupSumParameters(
        profile=profile,
        rows=rows,
        value_bound=value_bound,
        weight_bound=weight_bound,
        sum_slack=sum_slack,
        degree=fixed.degree,
        primes=fixed.primes,
        coefficient_bits=fixed.coefficient_bits,
        sum_bits=sum_bits,
        delta=delta,
        noise_bound=noise_bound,
        flood_width=flood_width,
    )


def statistical_leak_log2(parameters: GroupSumParameters, answers: int, squared_weight_norm: int) -> float:
    """log2 of a bound on what all answers of a run say beyond the sums, as statistical distance.

    An answer's noise z has mean 0 and variance ``10.5 * |w|^2 + 2 * N * 10.5^2``; the flood hides it up to
    ``E|z| / flood_width <= sd / flood_width``, and distances add up over adaptively chosen vectors (chain rule). It
    holds for an asker that follows the protocol; one that crafts its errors is bounded by sum_bits, not by this.

    For bfv-8192 the part z of the noise that depends on the answerer shows only where it tips the rounding of the
    switch by 1, with a probability of at most ``|z| / 2^59``, and then only through a flood of width at least
    ``2^(58 - T)``.

    Args:
        parameters: Of the run.
        answers: Numbers answered in the whole run: outputs times vectors.
        squared_weight_norm: Largest sum of squared weights of an output column (rows of the largest bin, for a
            grouping); for bfv-8192 of the eight outputs that share a ciphertext together.

    Returns:
        log2 of the distance; minus infinity where no answer was given, 0 (everything) for unsafe-plaintext.

    Source: docs/adr/0002-hinted-group-sum.md; Goldwasser et al., ICS 2010, Lemma 1 (flooding).
    """
    if not parameters.encrypted:
        return 0.0
    if answers < 1:
        return -math.inf
    variance = CBD_ETA / 2
    spread = variance * squared_weight_norm
    if parameters.profile == BFV_8192:
        shown = 2 * _SWITCH_LOG2 - 3 - parameters.sum_bits
        return math.log2(answers) + math.log2(spread) / 2 - shown
    spread += 2 * parameters.degree * variance * variance
    return math.log2(answers) + math.log2(spread) / 2 - math.log2(parameters.flood_width)


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise BoundError("profile.name", f"unknown profile {name!r}; there are {', '.join(sorted(PROFILES))}")
    return PROFILES[name]


def _check_sizes(rows: int, weight_bound: int, sum_slack: int) -> None:
    if not 1 <= rows <= _MAX_ROWS:
        raise BoundError("profile.rows", f"{rows} rows; between 1 and {_MAX_ROWS} are possible")
    if not 1 <= weight_bound <= _MAX_WEIGHT:
        raise BoundError("profile.weights", f"weights up to {weight_bound}; the bound must lie in 1..{_MAX_WEIGHT}")
    if sum_slack < 0:
        raise BoundError("profile.slack", f"a sum slack of {sum_slack} is no bound")


def _noise_bound(fixed: Profile, rows: int, weight_bound: int) -> int:
    if fixed.primes:
        return CBD_ETA * rows * weight_bound + 2 * fixed.degree * CBD_ETA * CBD_ETA
    if fixed.name == BFV_8192:
        return (CBD_ETA + 1) * rows * weight_bound * fixed.degree + CBD_ETA * (2 * fixed.degree + 1) + 1
    return 0
