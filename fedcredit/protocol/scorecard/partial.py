"""A feature holder's integer total of each row; pure, so that the oracle computes the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fedcredit.errors import BoundError, PeerError
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.bin.features import BinnedFeature
from fedcredit.protocol.scorecard.plan import MAX_COEFFICIENT, FitPlan

__all__ = ["RowDraws", "check_table", "check_totals", "partial_totals", "perturb", "total_bits"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_DEVIATIONS = 10.0  # an honest sum is that far off once in 10^23; ndtri of a double's fraction stays within 8.3
_FRACTION_BITS = 53  # a uniform double; the tail it cannot reach has probability 2^-53


def partial_totals(codes: Sequence[NDArray[np.int32]], tables: Sequence[Ints], rows: int) -> Ints:
    """Sum over features of each row's entry; int64 (rows,)."""
    total = np.zeros(rows, np.int64)
    for code, table in zip(codes, tables, strict=True):
        total += table[code]
    return total


@dataclass(frozen=True)
class RowDraws:
    """A holder's draws for the totals of a run: each row's follow from its id, whatever other rows there are.

    Two rounds get other draws; the same row in the same round always the same, so that an auditor can repeat them, and
    asking in another order or among other rows averages nothing out.

    Args:
        key: 32 bytes, of the holder's own seed, escrowed.
        ids: The rows.
    """

    key: bytes
    ids: Sequence[str]

    def of(self, rows: NDArray[np.bool_]) -> RowDraws:
        """The draws of some rows; bool (n,)."""
        return RowDraws(self.key, list(compress(self.ids, rows.tolist())))

    def uniform(self, number: int) -> tuple[Floats, Floats]:
        """Two uniform numbers in (0, 1) for each row in one round; float64 (rows,) each.

        Source: RFC 7693 (BLAKE2b), keyed.
        """
        keyed = hashlib.blake2b(digest_size=16, key=self.key, person=b"totals" + number.to_bytes(4, "little"))

        def words(one: str) -> bytes:
            hasher = keyed.copy()
            hasher.update(one.encode())
            return hasher.digest()

        drawn = np.frombuffer(b"".join(map(words, self.ids)), dtype="<u8").reshape(-1, 2) >> np.uint64(
            64 - _FRACTION_BITS
        )
        numbers = (drawn.astype(np.float64) + 0.5) / float(1 << _FRACTION_BITS)
        return numbers[:, 0], numbers[:, 1]


def perturb(total: Ints, plan: FitPlan, draws: RowDraws, number: int) -> Ints:
    """Noise and random rounding of a fit's totals, as the plan says; unbiased.

    Args:
        total: int64 (rows,), exact.
        plan: Noise and step in units.
        draws: Of the same rows.
        number: Number of the round.
    """
    values = total.astype(np.float64)
    for_noise, for_rounding = draws.uniform(number)
    if plan.noise_units > 0:
        values += plan.noise_units * ndtri(for_noise)
    if plan.step_units > 1:
        steps = values / plan.step_units
        floor = np.floor(steps)
        return ((floor + (for_rounding < steps - floor)) * plan.step_units).astype(np.int64)
    return np.rint(values).astype(np.int64)


def check_totals(
    totals: Ints, features: Sequence[BinnedFeature], tables: Mapping[int, Ints], plan: FitPlan | None
) -> None:
    """Holds opened totals against the counts by bin that the label holder has already.

    The sum over rows of the totals is known, exactly for scores and up to the holders' noise in a fit, and so is the
    range of each total: whoever adds, drops or invents partials has to hit both.

    Args:
        totals: int64 (rows,), of all feature holders together.
        features: All candidates.
        tables: Table of each kept feature of a feature holder, by its place among the candidates.
        plan: The fit, whose noise is allowed for; None for scores, which have none.

    Raises:
        PeerError: the totals are not those of the tables and rows.
    """
    low = sum(int(table.min()) for table in tables.values())
    high = sum(int(table.max()) for table in tables.values())
    slack = deviation = 0.0
    if plan is not None:
        owners = len({features[place].owner for place in tables})
        slack = owners * (_DEVIATIONS * plan.noise_units + plan.step_units)
        deviation = math.sqrt(owners * len(totals) * (plan.noise_units**2 + plan.step_units**2 / 4))
    counts = {p: features[p].test_rows if plan is None else _train_rows(features[p]) for p in tables}
    expected = sum(int(counts[place] @ table) for place, table in tables.items())
    outside = bool(len(totals)) and (int(totals.min()) < low - slack or int(totals.max()) > high + slack)
    if outside or abs(int(totals.sum()) - expected) > _DEVIATIONS * deviation:
        raise PeerError("scorecard.totals", "coordinator: totals that do not fit the counts by bin of the holders")


def _train_rows(feature: BinnedFeature) -> Ints:
    return feature.merged.goods + feature.merged.bads


def check_table(table: Ints, woe_units: Ints, unit: float) -> None:
    """Refuses points that are not one coefficient times the WOE of the bins, rounded.

    Tables of other shapes can spell a row's bins into its total: digits of one number, which no noise covers.

    Args:
        table: int64 (bins,), as received.
        woe_units: int64 (bins,), WOE of the same bins.
        unit: Points that make one logit.

    Raises:
        BoundError: no coefficient of at most `MAX_COEFFICIENT` gives this table.
    """
    points, woe = table.astype(np.float64), woe_units * (WOE_UNIT * unit)
    flat = woe == 0
    if points[flat].any():
        raise BoundError("scorecard.table", "points for a bin of WOE 0")
    slack = 0.5 + 1e-6  # rounding, and the last digits of the sender's floating point
    ends = np.sort(np.stack([points[~flat] - slack, points[~flat] + slack]) / woe[~flat], axis=0)
    low = max(-MAX_COEFFICIENT, float(ends[0].max(initial=-np.inf)))
    high = min(MAX_COEFFICIENT, float(ends[1].min(initial=np.inf)))
    if low > high:
        raise BoundError("scorecard.table", "points that are not one coefficient times the WOE of the bins")


def total_bits(tables: Sequence[Ints], step: int) -> float:
    """Bits a total can disclose about a row at most: the logarithm of how many multiples of ``step`` it can become."""
    low, high = sum(int(table.min()) for table in tables), sum(int(table.max()) for table in tables)
    return math.log2(-(-high // step) - low // step + 1)
