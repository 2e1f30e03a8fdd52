"""Rows from their totals: how many combinations of bins fit what a label holder opened.

A label holder knows every table of integer points it sent and opens one total a row and round. All combinations of bins
over the hidden features are counted exactly: a distribution over totals is built feature by feature (each table shifts
it), and for each feature the distribution of all the others, so that every bin of every row gets its exact share of the
combinations. The cost grows with the number of *different totals*, not with the number of combinations.

With weights one, a row whose totals fit a single combination has told all its bins. With class shares as weights, the
shares are the attacker's posterior under independent features: correlated features tell it more.

Where holders add noise and round at random, nothing is determined any more; `noisy_posterior` weighs combinations drawn
from the class shares by how well they fit.

Source: docs/attacks.md section 2; counting subset sums by dynamic programming is folklore (Bellman 1957).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError

__all__ = ["TotalsFinding", "bin_posterior", "combinations", "noisy_posterior", "read_totals"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_TOTALS = 1 << 22  # distinct totals kept; beyond, the counting would not fit a small machine
_KEY_BITS = 62


@dataclass(frozen=True)
class TotalsFinding:
    """What totals tell about the rows of one class.

    Args:
        combinations: float64 (n,), combinations of bins that fit the totals of each row.
        posterior: For each feature float64 (n, B), share of the combinations, weighted, with the row in that bin.
    """

    combinations: Floats
    posterior: tuple[Floats, ...]

    @property
    def determined(self) -> float:
        """Share of rows all of whose hidden bins are uniquely determined."""
        return float((self.combinations < 1.5).mean())  # counts are whole numbers in floating point


@dataclass(frozen=True)
class _Spread:
    """A distribution: sorted keys of totals, and the weight of each."""

    keys: Ints
    weights: Floats

    def shifted(self, shifts: Ints, weights: Floats) -> _Spread:
        keys = (self.keys[None, :] + shifts[:, None]).ravel()
        found, where = np.unique(keys, return_inverse=True)
        if len(found) > _MOST_TOTALS:
            raise BoundError("attack.totals", f"{len(found)} different totals, {_MOST_TOTALS} can be counted")
        joint = (weights[:, None] * self.weights[None, :]).ravel()
        return _Spread(found, np.bincount(where, weights=joint).astype(np.float64))

    def at(self, keys: Ints) -> Floats:
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        hit: Floats = np.where(self.keys[place] == keys, self.weights[place], 0.0)
        return hit


_NOTHING = _Spread(np.zeros(1, np.int64), np.ones(1))


def combinations(tables: Sequence[Ints], totals: Ints) -> Floats:
    """Number of combinations of bins that fit each row's totals; float64 (n,).

    Args:
        tables: For each hidden feature int64 (rounds, bins).
        totals: int64 (rounds, n), the hidden part of the totals.
    """
    shifts, keys = _keys(tables, totals)
    spread = _NOTHING
    for shift in shifts:
        spread = spread.shifted(shift, np.ones(len(shift)))
    return spread.at(keys)


def bin_posterior(tables: Sequence[Ints], totals: Ints, shares: Sequence[Floats]) -> tuple[Floats, ...]:
    """Posterior of each feature's bin under independent features; for each feature float64 (n, B).

    Args:
        tables: As in `combinations`.
        totals: As in `combinations`.
        shares: For each feature float64 (bins,), share of the rows of this class in each bin.
    """
    shifts, keys = _keys(tables, totals)
    before, after = [_NOTHING], [_NOTHING]
    for shift, share in zip(shifts[:-1], shares[:-1], strict=True):
        before.append(before[-1].shifted(shift, share))
    for shift, share in zip(reversed(shifts[1:]), reversed(shares[1:]), strict=True):
        after.append(after[-1].shifted(shift, share))
    found = []
    for place, (shift, share) in enumerate(zip(shifts, shares, strict=True)):
        front, back = before[place], after[len(shifts) - 1 - place]
        weight = np.stack([_joint(front, back, keys - one) for one in shift], axis=1) * share
        total = weight.sum(axis=1, keepdims=True)
        found.append(np.where(total > 0, weight / np.where(total > 0, total, 1.0), share[None, :]))
    return tuple(found)


def read_totals(tables: Sequence[Ints], totals: Ints, shares: Sequence[Floats]) -> TotalsFinding:
    """Both counts for rows of one class."""
    return TotalsFinding(combinations(tables, totals), bin_posterior(tables, totals, shares))


def noisy_posterior(
    tables: Sequence[Ints], totals: Ints, shares: Sequence[Floats], variance: float, draws: int = 20_000
) -> tuple[Floats, ...]:
    """Posterior as in `bin_posterior`, from totals with Gaussian noise; for each feature float64 (n, B).

    Args:
        tables: As in `combinations`.
        totals: As in `combinations`, with noise.
        shares: As in `bin_posterior`.
        variance: Of the noise of one total, all holders together; random rounding to a step adds its square over six.
        draws: Combinations drawn; few fit a row where features are many, so that this is a lower bound of an attack.

    Raises:
        BoundError: no noise: `bin_posterior` is exact.
    """
    if not variance > 0:
        raise BoundError("attack.noise", "totals without noise are read exactly, by bin_posterior")
    source = np.random.default_rng(0)
    picks = [source.choice(len(share), size=draws, p=share) for share in shares]
    sums = sum(table[:, pick] for table, pick in zip(tables, picks, strict=True))
    scaled = np.asarray(sums, dtype=np.float64) / np.sqrt(variance)
    members = [
        (pick[:, None] == np.arange(len(share))).astype(np.float64) for pick, share in zip(picks, shares, strict=True)
    ]
    found = [np.empty((totals.shape[1], len(share))) for share in shares]
    for row, total in enumerate(totals.T / np.sqrt(variance)):
        distance = ((scaled - total[:, None]) ** 2).sum(axis=0)
        weight = np.exp((distance.min() - distance) / 2)
        weight /= weight.sum()
        for one, member in zip(found, members, strict=True):
            one[row] = weight @ member
    return tuple(found)


def _joint(front: _Spread, back: _Spread, keys: Ints) -> Floats:
    """Weight of each key in the sum of two independent spreads: the middle is met from both sides."""
    small, large = sorted((front, back), key=lambda one: len(one.keys))
    different, where = np.unique(keys, return_inverse=True)
    found = np.zeros(len(different))
    for key, weight in zip(small.keys, small.weights, strict=True):
        found += weight * large.at(different - key)
    return found[where]


def _keys(tables: Sequence[Ints], totals: Ints) -> tuple[list[Ints], Ints]:
    """All rounds of a table, and of a total, in one integer each; sums of tables become sums of keys."""
    if not tables or any(len(table) != len(totals) for table in tables):
        raise BoundError("attack.rounds", f"each table and the totals need the same number of rounds, {len(totals)}")
    low = np.array([sum(int(table[r].min()) for table in tables) for r in range(len(totals))])
    high = np.array([sum(int(table[r].max()) for table in tables) for r in range(len(totals))])
    widths = [int(h - b + 1) for b, h in zip(low, high, strict=True)]
    if sum(width.bit_length() for width in widths) > _KEY_BITS:
        raise BoundError("attack.keys", f"totals of {widths} values do not fit into one key")
    steps = np.cumprod([1, *widths[:-1]]).astype(np.int64)
    shifts = [steps @ (table - table.min(axis=1, keepdims=True)) for table in tables]
    inside = ((totals >= low[:, None]) & (totals <= high[:, None])).all(axis=0)
    return shifts, np.where(inside, steps @ (totals - low[:, None]), np.int64(-1))
