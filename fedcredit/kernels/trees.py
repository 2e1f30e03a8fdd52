"""Boosted trees from columns in one place: the oracle of the encrypted run, which shares every rule with it.

Given the label holder's draws and the holders' noise, it is the encrypted model bit for bit; in a simulation without
noise it is the plaintext model that others are held against.

Source: Friedman, Annals of Statistics 29 (2001); Chen & Guestrin, KDD 2016; Shi et al., NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import DataError
from fedcredit.kernels.boost_state import (
    BoostCheckpoint,
    Boosted,
    BoostRules,
    BoostState,
    Draws,
    NoDraws,
    Records,
    TreeDraws,
    TreeRecord,
)
from fedcredit.kernels.histogram import bin_offsets, histogram
from fedcredit.kernels.tree_grower import Columns
from fedcredit.kernels.tree_model import TreeFeature, left_bits

__all__ = [
    "BoostCheckpoint",
    "BoostRules",
    "BoostState",
    "Boosted",
    "Draws",
    "NoDraws",
    "Records",
    "TreeDraws",
    "TreeRecord",
    "fit_boosted",
    "grow_all",
]

Bools = NDArray[np.bool_]
Codes = NDArray[np.unsignedinteger[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Foreign:
    """The foreign features' side: answers what their owners would."""

    features: Sequence[TreeFeature]
    codes: Codes

    def sums(self, columns: Columns, noise: tuple[Ints, Ints] | None) -> tuple[Ints, Ints]:
        """Sums by bin over the rows that count."""
        bins = [feature.bins for feature in self.features]
        rows = np.flatnonzero((columns.g != 0) | (columns.h != 0))
        g, h = histogram(self.codes, bin_offsets(bins), sum(bins), rows, columns.g, columns.h)
        return (g, h) if noise is None else (g + noise[0], h + noise[1])


def fit_boosted(
    features: Sequence[TreeFeature],
    codes: Codes,
    bad: Bools,
    train_rows: Bools,
    rules: BoostRules,
    draws: Draws | None = None,
) -> Boosted:
    """Grows a model from the bins of all features.

    Args:
        features: All features of the run, own and foreign.
        codes: uint8 or uint16 (F, n), the bin of each row in each feature.
        bad: bool (n,), True = defaulted.
        train_rows: bool (n,), rows to train on; all others are validation rows.
        rules: How the model is grown.
        draws: Chance; None where nothing is left to it.

    Returns:
        The model, the margins of all rows and what each tree brought.

    Raises:
        DataError: Shapes differ, a bin is out of range, or a class is missing.
    """
    _check(features, codes)
    own = np.ascontiguousarray(codes[[not feature.foreign for feature in features]])
    state = BoostState(Records(tuple(features), own, bad, train_rows), rules)
    grow_all(state, codes, NoDraws(len(features)) if draws is None else draws)
    return state.result()


def grow_all(state: BoostState, codes: Codes, draws: Draws) -> None:
    """Grows a model to its end, where the bins of all features are in one place.

    Args:
        state: The model under growth.
        codes: uint8 or uint16 (F, n), the bin of each row in each feature.
        draws: Chance.

    Raises:
        DataError: There are not as many codes as features.
    """
    features = state.records.features
    _check(features, codes)
    foreign = np.array([feature.foreign for feature in features], dtype=np.bool_)
    there = _Foreign([one for one in features if one.foreign], np.ascontiguousarray(codes[foreign]))
    while not state.finished:
        tree, round_ = len(state.history), 0
        grower = state.next_tree(draws)
        while not grower.done:
            asked = [
                there.sums(columns, draws.noise(tree, round_, slot)) for slot, columns in enumerate(grower.queries())
            ]
            wanted = grower.choose(asked)
            grower.settle({split: left_bits(split, codes[split.feature]) for split in wanted})
            round_ += 1
        state.add(grower)


def _check(features: Sequence[TreeFeature], codes: Codes) -> None:
    if codes.ndim != 2 or len(codes) != len(features):
        raise DataError(
            "kernels.tree-codes", f"codes are {codes.shape}; {len(features)} rows are needed, one a feature"
        )
