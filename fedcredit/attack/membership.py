"""Whose bin is whose: rows from exact sums.

An attacker knows T vectors over n rows and, for one feature of B bins, the sum of each vector over the rows of each
bin: ``V X = S`` with ``X`` the unknown one-hot matrix (n, B). Two attacks:

* least squares: the solution nearest to a prior guess, then the largest entry of each row;
* one-hot: Douglas-Rachford between the solutions of ``V X = S`` and rows on the probability simplex, then the same.

Both take a prior: class shares by bin, which the sums themselves tell, or what totals of rows say (`totals`). Where
the sums carry noise of a known deviation, least squares becomes the best linear estimate, and one-hot the most likely
point of the simplex; where something is known for certain (on which side of a disclosed split a row lies), bins that
are ruled out stay out. `posterior` goes further where there is noise.

What they do not prove: a better algorithm may recover more. Below their threshold the figures are lower bounds of what
leaks, never upper ones.

Source: Dinur & Nissim, "Revealing information while preserving privacy" (PODS 2003), for reconstruction from sums by
linear programming; Eckstein & Bertsekas, Math. Programming 55 (1992), for the splitting; Duchi et al., ICML 2008, for
the projection on the simplex; docs/attacks.md section 1 for what they find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError

__all__ = ["Equations", "Recovery", "class_prior", "least_squares", "measure", "one_hot", "start_from"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_RANK = 1e-9  # singular values below this share of the largest are combinations of the other vectors
_FAR = -1e6  # an entry that no projection on the simplex keeps


@dataclass(frozen=True)
class Equations:
    """What an attacker knows of one feature.

    Args:
        vectors: int64 (T, n), the attacker's vectors.
        sums: int64 (T, B), their sums over the rows of each bin.
        noise: float64 (T,), standard deviation of the noise in the sums of each vector; None = exact.
        allowed: bool (n, B), bins that a row can be in by what is known for certain; None = all.
    """

    vectors: Ints
    sums: Ints
    noise: Floats | None = None
    allowed: Bools | None = None

    def __post_init__(self) -> None:
        """Refuses shapes that do not fit.

        Raises:
            BoundError: not one row of sums, or not one deviation above 0, for each vector; nothing to attack; a row
                that can be nowhere.
        """
        if self.vectors.ndim != 2 or self.sums.ndim != 2 or len(self.vectors) != len(self.sums):
            raise BoundError(
                "attack.shape", f"vectors {self.vectors.shape} and sums {self.sums.shape}; (T, n) and (T, B) needed"
            )
        if not (self.vectors.shape[1] and self.sums.shape[1]):
            raise BoundError("attack.shape", f"{self.vectors.shape[1]} rows and {self.sums.shape[1]} bins to attack")
        if self.noise is not None and (self.noise.shape != (len(self.sums),) or not (self.noise > 0).all()):
            raise BoundError("attack.noise", f"a deviation above 0 is needed for each of {len(self.sums)} vectors")
        if self.allowed is not None and (
            self.allowed.shape != (self.rows, self.bins) or not self.allowed.any(axis=1).all()
        ):
            raise BoundError("attack.allowed", f"each of {self.rows} rows needs a place in {self.bins} bins")

    @property
    def rows(self) -> int:
        """Number of rows n."""
        return int(self.vectors.shape[1])

    @property
    def bins(self) -> int:
        """Number of bins B."""
        return int(self.sums.shape[1])


@dataclass(frozen=True)
class Recovery:
    """How much was right.

    Args:
        everyone: Share of the rows looked at whose bin was found.
        defaulters: The same among the defaulters.
        uniform: 1 / bins: what blind guessing finds.
        modal: Share of defaulters in their most frequent bin: what the class counts alone find.
        equations: Number of equations used.
    """

    everyone: float
    defaulters: float
    uniform: float
    modal: float
    equations: int

    @property
    def times_chance(self) -> float:
        """Accuracy over defaulters in multiples of blind guessing."""
        return self.defaulters / self.uniform


def class_prior(classes: NDArray[np.integer], counts: Ints) -> Floats:
    """Share of each bin in the class of each row; float64 (n, B).

    Args:
        classes: (n,), class of each row, for example 0 held out, 1 good, 2 bad.
        counts: int64 (classes, B), rows of each class in each bin.
    """
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share: Floats = (counts / totals)[classes]
    return share


def least_squares(known: Equations, prior: Floats | None = None) -> Floats:
    """The solution of the equations nearest to the prior; float64 (n, B).

    With noise, the best linear estimate: each entry moves from its prior p as far as p (1 - p) and the noise allow.
    """
    start = start_from(known, prior)
    if known.noise is None and known.allowed is None:
        return _Affine(known).project(start)
    spread = start * (1.0 - start)
    same = bool((spread == spread[:, :1]).all())
    places = [slice(0, known.bins)] if same else [slice(place, place + 1) for place in range(known.bins)]
    guess = np.hstack([_best_linear(known, start[:, here], spread[:, here.start], here) for here in places])
    return guess if known.allowed is None else np.where(known.allowed, guess, -np.inf)


def _best_linear(known: Equations, start: Floats, spread: Floats, here: slice) -> Floats:
    """Best linear estimate of some columns whose entries have the same spread."""
    vectors = known.vectors.astype(np.float64)
    heard = vectors * spread
    gap = known.sums[:, here] - vectors @ start
    seen = heard @ vectors.T
    if known.noise is None:
        step = np.linalg.lstsq(seen, gap, rcond=_RANK)[0]
    else:
        step = np.linalg.solve(seen + np.diag(known.noise**2), gap)
    return np.asarray(start + heard.T @ step, dtype=np.float64)


def one_hot(known: Equations, prior: Floats | None = None, steps: int = 300) -> Floats:
    """Rows on the simplex that satisfy the equations, as nearly as ``steps`` of Douglas-Rachford come.

    Returns:
        float64 (n, B), each row on the probability simplex.
    """
    affine = _Affine(known)
    out = None if known.allowed is None else ~known.allowed
    state = affine.project(start_from(known, prior))
    rows = _simplex(state, out)
    for _ in range(steps):
        state = state + affine.project(2 * rows - state) - rows
        rows = _simplex(state, out)
    return rows


def measure(guess: Floats, truth: NDArray[np.integer], bad: Bools, among: Bools, equations: int) -> Recovery:
    """Compares the largest entries of a guess with the truth.

    Args:
        guess: float64 (n, B).
        truth: (n,), true bins.
        bad: bool (n,), defaulters.
        among: bool (n,), rows that count.
        equations: Number of equations used.

    Raises:
        BoundError: no defaulter among the rows that count.
    """
    if not (bad & among).any():
        raise BoundError("attack.defaulters", "no defaulter among the rows that count")
    right = guess.argmax(axis=1) == truth
    bads = truth[bad & among]
    modal = float(np.bincount(bads).max() / len(bads))
    bins = guess.shape[1]
    return Recovery(float(right[among].mean()), float(right[bad & among].mean()), 1.0 / bins, modal, equations)


class _Affine:
    """Projection on the solutions of ``V X = S``; with noise, the compromise between staying and fitting them."""

    def __init__(self, known: Equations) -> None:
        vectors = known.vectors.astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True) if known.noise is None else known.noise[:, None]
        norms = np.where(norms == 0, 1.0, norms)
        left, values, right = np.linalg.svd(vectors / norms, full_matrices=False)
        rank = int((values > _RANK * values[0]).sum()) if values.size else 0
        self._basis: Floats = right[:rank]
        self._target: Floats = (left[:, :rank] / values[:rank]).T @ (known.sums / norms)
        # In a direction that the vectors see with strength s, noise of 1 and a spread of 1 / B share as here.
        kept = values[:rank, None] ** 2
        self._pull: Floats | float = 1.0 if known.noise is None else kept / (kept + known.bins)

    def project(self, guess: Floats) -> Floats:
        """The nearest solution."""
        nearest: Floats = guess - self._basis.T @ (self._pull * (self._basis @ guess - self._target))
        return nearest


def start_from(known: Equations, prior: Floats | None) -> Floats:
    """The prior, or a uniform one, over the bins that each row can be in; float64 (n, B), rows add up to 1.

    Raises:
        BoundError: a prior of another shape, or one that rules a row out everywhere.
    """
    if prior is None:
        prior = np.full((known.rows, known.bins), 1.0 / known.bins)
    if prior.shape != (known.rows, known.bins):
        raise BoundError("attack.prior", f"a prior of {prior.shape}; ({known.rows}, {known.bins}) needed")
    if known.allowed is None:
        return prior.astype(np.float64)
    inside = np.where(known.allowed, prior, 0.0)
    total = inside.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise BoundError("attack.prior", "a prior that leaves a row no bin")
    return np.asarray(inside / total, dtype=np.float64)


def _simplex(rows: Floats, out: Bools | None = None) -> Floats:
    """Nearest point of the probability simplex, row by row; nothing where ``out``."""
    if out is not None:
        rows = np.where(out, _FAR, rows)
    descending = -np.sort(-rows, axis=1)
    excess = (np.cumsum(descending, axis=1) - 1.0) / np.arange(1, rows.shape[1] + 1)
    last = (descending > excess).sum(axis=1) - 1
    projected: Floats = np.maximum(rows - excess[np.arange(len(rows)), last][:, None], 0.0)
    return projected
