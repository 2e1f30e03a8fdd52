"""Chance in boosting: it comes from outside, so that a run can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws", "NoDraws", "TreeDraws"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class TreeDraws(Protocol):
    """Chance in the growth of trees; it comes from outside, so that a run can be repeated."""

    def rounding(self, tree: int, n: int) -> tuple[Floats, Floats]:
        """Two float64 (n,) in [0, 1) for the stochastic rounding; asked for only where gradients are rounded."""
        ...

    def rows(self, tree: int, n: int) -> Floats:
        """Float64 (n,) in [0, 1), asked for if ``row_sampling`` < 1: a training row counts where it is below that."""
        ...

    def columns(self, tree: int) -> Bools:
        """Bool (F,): features that may be used in the tree."""
        ...


class Draws(TreeDraws, Protocol):
    """Chance of a whole run, the holders' noise included."""

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        """Int64 (foreign bins,) for the sums of g and of h of one query; None = no noise.

        Args:
            tree: Number of the tree, from 0.
            round_: Round of the tree, from 0.
            slot: Place of the query in its round.
        """
        ...


@dataclass(frozen=True)
class NoDraws:
    """Nothing left to chance: every feature in every tree, no noise. For runs that neither round nor sample.

    Args:
        features: Number of features.
    """

    features: int

    def rounding(self, tree: int, n: int) -> tuple[Floats, Floats]:
        """Halves: rounding to the nearest."""
        del tree
        return np.full(n, 0.5), np.full(n, 0.5)

    def rows(self, tree: int, n: int) -> Floats:
        """Zeros: every row."""
        del tree
        return np.zeros(n)

    def columns(self, tree: int) -> Bools:
        """Every feature."""
        del tree
        return np.ones(self.features, dtype=np.bool_)

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        """None."""
        del tree, round_, slot
        return None
