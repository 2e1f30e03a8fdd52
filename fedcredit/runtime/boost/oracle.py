"""The plaintext oracle of boosting: the same trees from pooled columns; the encrypted run must agree with it exactly.

Simulation only: nobody outside a simulation has pooled columns. Bins, labels and sums come from the joined tables, not
from any answer of the run; only the holders' own seeds, and what their ledgers allowed, are taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import UnsafeSeededEntropy
from fedcredit.data.table import HolderTable
from fedcredit.kernels.tree_model import BoostedTrees, margins, pooled_bits
from fedcredit.kernels.trees import fit_boosted
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.columns import Codes, FeatureList, code_matrix, direction
from fedcredit.protocol.boost.draws import HolderDraws, LabelDraws
from fedcredit.protocol.boost.label_holder import training_rows
from fedcredit.protocol.boost.messages import TreeShape
from fedcredit.protocol.boost.plan import BoostPlan, plan_boost
from fedcredit.protocol.boost.roles import own_features
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = [
    "PooledColumns",
    "PooledDraws",
    "PooledTrees",
    "alone",
    "announced",
    "pool_columns",
    "pooled_trees",
    "unprotected",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PooledColumns:
    """All parties' columns in bins, in one place.

    Args:
        spec: The run.
        tables: Every party's records.
        keep: Every party's secrets, where its draws have been made from them.
        index: Common rows.
        bad: bool (n,).
        own: Each party's columns, the label holder first.
        seeds: Each party's seed of its draws.
        common: Of a party that draws features alike for several banks, the seed of that.
    """

    spec: RunSpec
    tables: Mapping[PartyId, HolderTable]
    keep: Mapping[PartyId, KeptSecrets]
    index: RowIndex
    bad: Bools
    own: Mapping[PartyId, Sequence[OwnFeature]]
    seeds: Mapping[PartyId, bytes]
    common: Mapping[PartyId, bytes] = field(default_factory=dict)

    def codes(self, parties: Sequence[PartyId]) -> Codes:
        """Bins of the columns of some parties that can be split: (features, n)."""
        every = np.arange(len(self.bad))
        return np.concatenate([code_matrix(self.own[party], every).astype(np.uint16) for party in parties])


@dataclass(frozen=True, eq=False)
class PooledTrees:
    """Trees from pooled columns.

    Args:
        model: The trees.
        margins: float64 (n,), log-odds of default of all common rows.
    """

    model: BoostedTrees
    margins: Floats


class PooledDraws:
    """Chance of all parties, as each of them draws it."""

    def __init__(self, plan: BoostPlan, pooled: PooledColumns, features: FeatureList) -> None:
        leader = pooled.spec.label_holder.name
        self._plan, self._features, self._leader = plan, features, leader
        seeds, common = pooled.seeds, pooled.common
        self._label = LabelDraws(seeds[leader], common.get(leader, b""))
        self._holders = {party: HolderDraws(seeds[party], common.get(party, b"")) for party in features.shapes}
        self.rounding, self.rows = self._label.rounding, self._label.rows

    def columns(self, tree: int) -> Bools:
        """Features that each owner lets into the tree."""
        share, active = self._plan.boost.column_sampling, np.ones(len(self._features.features), np.bool_)
        own = self._features.of_party(self._leader)
        active[own] = self._label.columns(tree, len(own), share)
        if tree < self._plan.boost.first_trees_local:
            return active
        for party, draws in self._holders.items():
            offered = draws.columns(tree, len(self._features.shapes[party]), share)
            active[self._features.of_party(party)] = offered[self._features.announced(party)]
        return active

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        """Noise of all holders' sums, side by side."""
        if not self._holders or not self._plan.noise_units:
            return None
        batch = self._plan.batch(tree, round_)
        parts: list[list[Ints]] = [[], []]
        for party, draws in self._holders.items():
            shown = self._features.outputs_in_model(party)
            for part, noise in zip(parts, draws.noise(batch, slot, len(shown), self._plan.noise_units), strict=True):
                part.append(noise[shown])
        return np.concatenate(parts[0]), np.concatenate(parts[1])


def pool_columns(
    rows: tuple[RowIndex, Bools],
    spec: RunSpec,
    tables: Mapping[PartyId, HolderTable],
    keep: Mapping[PartyId, KeptSecrets],
) -> PooledColumns:
    """Joins tables on the common rows and cuts them as each party does.

    Args:
        rows: Common rows as the label holder located them, and bool (n,) whether each is bad.
        spec: The run.
        tables: Every party's records; the label holder's alone in its own house.
        keep: Secrets as each party began with them.
    """
    leader = spec.label_holder.name
    own: dict[PartyId, Sequence[OwnFeature]] = {}
    seeds: dict[PartyId, bytes] = {}
    for party in [leader, *(holder.name for holder in spec.feature_holders if holder.name in tables)]:
        index = rows[0].at(tables[party].ids.to_list(), leads=party == leader)
        own[party], seeds[party] = own_features(Holding(spec, "", tables[party], keep[party]), index)
    return PooledColumns(spec, tables, keep, *rows, own, seeds)


def pooled_trees(pooled: PooledColumns, thresholds: Mapping[tuple[str, str], int | None]) -> PooledTrees:
    """The trees of all parties' columns, in the clear.

    Args:
        pooled: All columns.
        thresholds: For each holder and feature code, the splits that its ledger allows; None = no cap.
    """
    leader = pooled.spec.label_holder.name
    plan = plan_boost(pooled.spec)
    shapes = announced(pooled, leader)
    features = FeatureList.of(leader, pooled.own[leader], shapes, None)
    capped = tuple(
        replace(one, thresholds=thresholds[one.owner, one.code]) if one.foreign else one for one in features.features
    )
    return _grow(pooled, replace(features, features=capped), plan)


def announced(pooled: PooledColumns, leader: PartyId) -> dict[PartyId, list[TreeShape]]:
    """What each holder announces of its columns, without its caps."""
    return {party: [_shape(one) for one in columns] for party, columns in pooled.own.items() if party != leader}


def unprotected(pooled: PooledColumns) -> tuple[PooledColumns, PooledTrees]:
    """The same algorithm with nothing held back: no noise, no cap, every column in the label holder's number of bins.

    Returns:
        Columns as cut for it, and the trees.
    """
    spec = pooled.spec
    plan = plan_boost(spec)
    boost = plan.boost.model_copy(update={"holder_bins": plan.boost.bins, "holder_thresholds": 0})
    privacy = spec.privacy.model_copy(update={"noise_rows": 0.0})
    open_spec = spec.model_copy(update={"boost": boost, "privacy": privacy})
    keep = {
        party: replace(kept, replayable=UnsafeSeededEntropy(pooled.seeds[party]).child("unprotected"))
        for party, kept in pooled.keep.items()
        if party in pooled.seeds
    }
    again = pool_columns((pooled.index, pooled.bad), open_spec, pooled.tables, keep)
    free = {(str(party), feature.shape.code): None for party, columns in again.own.items() for feature in columns}
    return again, pooled_trees(again, free)


def alone(pooled: PooledColumns) -> PooledTrees | None:
    """The label holder's trees from its own columns; None where none of them can be split."""
    leader = pooled.spec.label_holder.name
    if not len(pooled.codes([leader])):
        return None
    plan = plan_boost(
        pooled.spec.model_copy(update={"privacy": pooled.spec.privacy.model_copy(update={"noise_rows": 0.0})})
    )
    return _grow(pooled, FeatureList.of(leader, pooled.own[leader], {}, None), plan)


def _grow(pooled: PooledColumns, features: FeatureList, plan: BoostPlan) -> PooledTrees:
    leader = pooled.spec.label_holder.name
    train = training_rows(pooled.index, pooled.bad, plan, LabelDraws(pooled.seeds[leader]))
    rows, codes = pooled.index.train, pooled.codes([leader, *features.shapes])
    draws = PooledDraws(plan, pooled, features)
    found = fit_boosted(
        features.features, np.ascontiguousarray(codes[:, rows]), pooled.bad[rows], train[rows], plan.rules, draws
    )
    return PooledTrees(found.model, margins(found.model, pooled_bits(found.model, codes)))


def _shape(feature: OwnFeature) -> TreeShape:
    shape = feature.shape
    return TreeShape(code=shape.code, bins=shape.bins, ordered=shape.ordered, monotone=direction(feature), thresholds=0)
