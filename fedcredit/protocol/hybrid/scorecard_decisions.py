"""Decisions of a scorecard over several banks; see `fedcredit.protocol.scorecard.decisions.Decisions`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedcredit.kernels.discriminant import Moments
from fedcredit.kernels.selection import Budget, Dropped
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature
from fedcredit.protocol.hybrid.scorecard_bins import pooled_bins
from fedcredit.protocol.hybrid.scorecard_steps import PooledSteps
from fedcredit.protocol.hybrid.totals import joined_matrix, total_reals, upper_half
from fedcredit.protocol.pool import Pool
from fedcredit.protocol.scorecard.candidates import Candidates, Offer, within_budgets
from fedcredit.protocol.scorecard.decisions import Steps, uncollinear
from fedcredit.spec.model import BinSection, HybridSection, ScorecardSection
from fedcredit.types import PartyId

__all__ = ["PooledDecisions"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EQUATIONS, _BINS = 512, 1024
"""Budgets are compared up to these; where every bank has more, none limits the choice."""


class PooledDecisions:
    """One bank's part in the decisions of all.

    Everything that orders or breaks ties does so by names that all banks have in common: a bank's own features go by no
    owner while something is decided.

    Args:
        pool: The banks.
        me: This one.
        hybrid: Section ``[hybrid]``.
    """

    def __init__(self, pool: Pool, me: PartyId, hybrid: HybridSection) -> None:
        self._pool, self._me, self._hybrid = pool, me, hybrid
        self._woe_units: dict[tuple[PartyId, str], Ints] = {}

    async def merge(self, counted: Sequence[CountedFeature], rules: BinSection) -> list[BinnedFeature]:
        """Bins from totals of weighted counts."""
        found = await pooled_bins(self._pool, self._me, counted, rules, self._hybrid)
        units = zip(found.features, found.woe_units, strict=True)
        self._woe_units = {(feature.owner, feature.code): woe for feature, woe in units}
        return found.features

    async def candidates(self, offer: Offer) -> Candidates:
        """Candidates by totals, and by what every bank's ledgers allow."""
        columns = offer.own_columns
        correlation = np.zeros((columns.shape[1], columns.shape[1]))
        if columns.shape[1]:
            own = _centred(len(columns), columns.sum(axis=0), columns.T @ columns)
            correlation = await self._correlation("card/own-correlation", own)
        budgets = await self._least(offer.budgets)
        nameless = replace(offer, binned=self._nameless(offer.binned))
        found = within_budgets(nameless, correlation, budgets)
        by_code = {(f.owner, f.code): f for f in offer.binned}
        features = tuple(by_code[f.owner or self._me, f.code] for f in found.features)
        return Candidates(features, tuple(self._named(drop) for drop in found.dropped))

    async def uncollinear(
        self, features: Sequence[BinnedFeature], products: Ints, rules: ScorecardSection
    ) -> tuple[list[int], list[Dropped]]:
        """Collinear columns by correlations within banks."""
        first = features[0].merged
        rows = int((first.goods + first.bads).sum())
        sums = np.array([int((f.merged.goods + f.merged.bads) @ f.merged.woe_units) for f in features])
        correlation = await self._correlation("card/correlation", _centred(rows, sums, products))
        kept, dropped = uncollinear(self._nameless(features), correlation, rules)
        return kept, [self._named(drop) for drop in dropped]

    def steps(self, features: Sequence[BinnedFeature], moments: Moments, good: Floats, ridge: float) -> Steps:
        """Steps on totals."""
        woe = tuple(self._woe_units[f.owner, f.code] for f in features)
        return PooledSteps(self._pool, self._hybrid, moments, good, ridge, woe)

    def _nameless(self, features: Sequence[BinnedFeature]) -> list[BinnedFeature]:
        return [replace(f, owner=PartyId("")) if f.owner == self._me else f for f in features]

    def _named(self, drop: Dropped) -> Dropped:
        against = f"{self._me}{drop.against}" if drop.against.startswith(":") else drop.against
        return replace(drop, owner=drop.owner or self._me, against=against)

    async def _correlation(self, what: str, products: Floats) -> Floats:
        """Correlations from totals of centred products."""
        size = len(products)
        total = joined_matrix(await total_reals(self._pool, what, upper_half(products)), size)
        spread = np.sqrt(np.maximum(np.diag(total), 0.0))
        spread[spread == 0] = np.inf
        correlation: Floats = np.clip(total / np.outer(spread, spread), -1.0, 1.0)
        np.fill_diagonal(correlation, 1.0)
        return correlation

    async def _least(self, budgets: Mapping[PartyId, Budget]) -> dict[PartyId, Budget]:
        """The smallest budget of any bank, holder by holder: how many banks have each number or more."""
        parties = sorted(budgets)
        marks = []
        for party in parties:
            for left, most in ((budgets[party].equations, _EQUATIONS), (budgets[party].bins, _BINS)):
                marks.append(np.arange(1, most + 1) <= min(left, most))
        if not marks:
            return {}
        total = await self._pool.sum("card/budgets", np.concatenate(marks).astype(np.int64), 1)
        everyone = total == len(self._pool.members)
        found = {}
        for place, party in enumerate(parties):
            part = everyone[place * (_EQUATIONS + _BINS) : (place + 1) * (_EQUATIONS + _BINS)]
            equations, bins = int(part[:_EQUATIONS].sum()), int(part[_EQUATIONS:].sum())
            found[party] = Budget(_unless_full(equations, _EQUATIONS), _unless_full(bins, _BINS))
        return found


def _unless_full(count: int, most: int) -> float:
    return math.inf if count == most else float(count)


def _centred(rows: int, sums: Ints, products: Ints) -> Floats:
    """Sums of products about one bank's own means."""
    mean = sums.astype(np.float64) / rows
    return products.astype(np.float64) - rows * np.outer(mean, mean)
