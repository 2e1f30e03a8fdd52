"""Whose bin is whose where sums are noisy: the attacker's posterior itself.

Sums with normal noise, rows in one bin each, and a prior make a probability of every assignment of rows to bins. It is
sampled by going through the rows again and again and placing each by its probability given all others. The share of the
samples that has a row in a bin is the posterior, and naming each row's most probable bin is then the *best* guess there
is for an attacker with this prior: no least squares, no linear programme and no lattice names more rows right on
average. What remains open is a better prior, and samples that have not forgotten their start.

Shares of bins by class of row are not given but learnt from the same sums, as unknowns of their own.

Source: Geman & Geman, IEEE PAMI 6 (1984), for the sampling; Gelman et al., Bayesian Data Analysis (2013), chapter 5,
for shares that are learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.attack.membership import Equations, start_from
from fedcredit.errors import BoundError
from fedcredit.kernels.compiled import compiled

__all__ = ["Sweeps", "posterior"]

_IMPOSSIBLE = -600.0  # log prior of a bin that is ruled out

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sweeps:
    """How long to sample.

    Args:
        first: Sweeps over all rows that are not counted; the noise is made to shrink to its size in the first half.
        counted: Sweeps that are counted.
        seed: Of the draws.
    """

    first: int = 60
    counted: int = 240
    seed: int = 0


def posterior(
    known: Equations,
    classes: NDArray[np.integer] | NDArray[np.bool_] | None = None,
    prior: Floats | None = None,
    sweeps: Sweeps | None = None,
) -> Floats:
    """Probability of each bin for each row; float64 (n, B).

    Args:
        known: Equations with noise.
        classes: (n,), rows that are alike to the attacker, for example good and bad; each class has its own shares of
            bins, learnt. None = all rows are alike.
        prior: float64 (n, B), what is known besides; None = nothing.
        sweeps: How long to sample.

    Raises:
        BoundError: equations without noise: `one_hot` is the attack on those.
    """
    if known.noise is None:
        raise BoundError("attack.noise", "sums without noise are solved, not sampled: by one_hot")
    sweeps = sweeps or Sweeps()
    start = start_from(known, prior)
    source = np.random.default_rng(sweeps.seed)
    group = np.zeros(known.rows, np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    # An equation over no row says nothing; the others are counted in their own noise.
    useful = (known.vectors != 0).any(axis=1)
    noise = known.noise[useful][:, None]
    vectors = np.ascontiguousarray((known.vectors[useful] / noise).T)
    sums = known.sums[useful] / noise
    place = _drawn(start, source.random(known.rows))
    log_start = np.log(np.maximum(start, 1e-300))
    found = np.zeros((known.rows, known.bins))
    for sweep in range(sweeps.first + sweeps.counted):
        gap = sums - vectors.T @ np.eye(known.bins)[place]  # anew each sweep: no error of rounding adds up
        warm = 1.0 + 8.0 * max(0.0, 1.0 - 2.0 * sweep / max(1, sweeps.first))
        shares = _shares(place, group, known.bins, source)
        prior_now = np.ascontiguousarray(log_start + np.log(shares)[group])
        counting = sweep >= sweeps.first
        _sweep(vectors, np.ascontiguousarray(gap), (place, prior_now, source.random(known.rows)), 1.0 / warm, found)
        if not counting:
            found[:] = 0.0
    return found / sweeps.counted


def _shares(place: Ints, group: Ints, bins: int, source: np.random.Generator) -> Floats:
    """Shares of bins of each class, drawn given where the rows are; no bin is ruled out."""
    counts = np.zeros((int(group.max()) + 1, bins))
    np.add.at(counts, (group, place), 1.0)
    drawn = source.standard_gamma(counts + 1.0)
    shares: Floats = np.maximum(drawn / drawn.sum(axis=1, keepdims=True), 1e-12)
    return shares


def _drawn(shares: Floats, uniforms: Floats) -> Ints:
    edges = np.cumsum(shares, axis=1)
    inside: Ints = np.asarray((uniforms[:, None] * edges[:, -1:] >= edges).sum(axis=1), dtype=np.int64)
    return inside.clip(max=shares.shape[1] - 1)


@compiled
def _sweep(vectors: Floats, gap: Floats, state: tuple[Ints, Floats, Floats], sharpness: float, found: Floats) -> None:
    """Places every row anew by its probability given the others, and adds that probability to ``found``.

    Args:
        vectors: float64 (n, T), in units of the noise.
        gap: float64 (T, B), sums less those of the rows as they are placed; changed in place.
        state: Place of each row, changed in place; log prior (n, B); uniforms (n,).
        sharpness: One over the factor on the variance.
        found: float64 (n, B), added to.
    """
    place, prior, uniforms = state
    bins = gap.shape[1]
    weight = np.empty(bins)
    for row in range(vectors.shape[0]):
        vector = vectors[row]
        weight[:] = 0.0
        for t in range(vector.size):
            value = vector[t]
            if value != 0.0:
                gap[t, place[row]] += value
                for b in range(bins):
                    weight[b] += value * gap[t, b]
        largest = -np.inf
        for b in range(bins):
            weight[b] = prior[row, b] + sharpness * weight[b]
            if prior[row, b] > _IMPOSSIBLE:
                largest = max(largest, weight[b])
        total = 0.0
        for b in range(bins):
            weight[b] = np.exp(weight[b] - largest) if prior[row, b] > _IMPOSSIBLE else 0.0
            total += weight[b]
        left, new = uniforms[row] * total, -1
        for b in range(bins):
            found[row, b] += weight[b] / total
            if weight[b] > 0.0 and left >= 0.0:
                new = b
            left -= weight[b]
        place[row] = new
        for t in range(vector.size):
            gap[t, new] -= vector[t]
