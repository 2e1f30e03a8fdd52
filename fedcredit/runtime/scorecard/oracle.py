"""The plaintext oracle: the same scorecard from pooled columns, with which the encrypted run must agree exactly.

Simulation only: nobody outside a simulation has pooled columns. Counts come from ``numpy`` over the joined table, not
from any answer of the run; only what the ledgers allowed and the holders' own seeds are taken over.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.data.table import HolderTable
from fedcredit.errors import FedCreditError
from fedcredit.kernels.selection import Budget
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, OwnFeature, count_labels
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.scorecard.candidates import Candidates, Offer, merged_codes
from fedcredit.protocol.scorecard.decisions import Decisions, OneBank
from fedcredit.protocol.scorecard.fit import FitRules, FittedScorecard, fit_scorecard
from fedcredit.protocol.scorecard.partial import RowDraws, partial_totals, perturb
from fedcredit.protocol.scorecard.plan import FitPlan, plan_fit
from fedcredit.protocol.scorecard.roles import LabelResult, prebin_rules
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["Pooled", "PooledResult", "decided_scorecard", "pool", "pooled_scorecard", "run_synchronously"]

Ints = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Pooled:
    """All parties' columns in one place.

    Args:
        spec: The run.
        index: Common rows, as the label holder located them.
        bad: bool (n,).
        features: Each party's columns in bins, the label holder first.
        draws: Each feature holder's key of the draws for its rows' totals.
    """

    spec: RunSpec
    index: RowIndex
    bad: NDArray[np.bool_]
    features: Mapping[PartyId, Sequence[OwnFeature]]
    draws: Mapping[PartyId, bytes]


@dataclass(frozen=True)
class PooledResult:
    """A scorecard from pooled columns.

    Args:
        features: All binned features.
        candidates: Features tried.
        fitted: The scorecard.
        woe: int64 (n, k), WOE units of the kept features.
    """

    features: tuple[BinnedFeature, ...]
    candidates: Candidates
    fitted: FittedScorecard
    woe: Ints


def pool(
    result: LabelResult, spec: RunSpec, tables: Mapping[PartyId, HolderTable], keep: Mapping[PartyId, KeptSecrets]
) -> Pooled:
    """Joins tables on the common rows.

    Args:
        result: The label holder's, for the common ids and the labels.
        spec: The run.
        tables: Every party's records; the label holder's alone in its own house.
        keep: Fresh seed streams, equal to those the parties began with.
    """
    features: dict[PartyId, Sequence[OwnFeature]] = {}
    leader = spec.label_holder.name
    for party in [leader, *(holder.name for holder in spec.feature_holders if holder.name in tables)]:
        index = result.index.at(tables[party].ids.to_list(), leads=party == leader)
        features[party] = Holding(spec, "", tables[party], keep[party]).prebinned(index, prebin_rules(spec.bin))
    draws = {p.name: keep[p.name].replayable.take(SEED_BYTES) for p in spec.feature_holders if p.name in tables}
    return Pooled(spec, result.index, result.bad, features, draws)


def pooled_scorecard(pooled: Pooled, budgets: Mapping[PartyId, Budget], parties: Sequence[PartyId]) -> PooledResult:
    """The scorecard of some parties' features, in the clear.

    Args:
        pooled: All columns.
        budgets: What the ledgers of the feature holders among ``parties`` allow.
        parties: Whose features are used; the label holder alone gives the bank's own scorecard.
    """
    return run_synchronously(decided_scorecard(pooled, budgets, parties, OneBank()))


async def decided_scorecard(
    pooled: Pooled, budgets: Mapping[PartyId, Budget], parties: Sequence[PartyId], decisions: Decisions
) -> PooledResult:
    """As `pooled_scorecard`, where somebody else decides: the banks of a hybrid run, each with columns joined."""
    spec = pooled.spec
    plan = plan_fit(spec.scorecard)
    used = [(party, feature) for party in parties for feature in pooled.features[party]]
    counted = [
        CountedFeature(party, f.shape, count_labels(f.codes, f.shape.bins, pooled.bad, pooled.index))
        for party, f in used
    ]
    binned = await decisions.merge(counted, spec.bin)
    leader = spec.label_holder.name
    allowed = {party: budgets[party] for party in parties if party != leader}
    offer = Offer(binned, pooled.features[leader], pooled.index.train, allowed, spec.scorecard, plan)
    candidates = await decisions.candidates(offer)
    sums = _PooledSums(pooled, candidates, plan)
    good = ~pooled.bad[pooled.index.train]
    fitted = await fit_scorecard(sums, candidates.features, good, FitRules(spec.scorecard, plan, decisions))
    kept = [candidates.features.index(feature) for feature in fitted.features]
    return PooledResult(tuple(binned), candidates, fitted, sums.columns[:, kept])


class _PooledSums:
    """The sums of a fit over pooled columns; see `fedcredit.protocol.scorecard.fit.FitSums`."""

    def __init__(self, pooled: Pooled, candidates: Candidates, plan: FitPlan) -> None:
        self._pooled, self._features, self._plan = pooled, candidates.features, plan
        codes = {
            (party, feature.shape.code): feature.codes
            for party, features in pooled.features.items()
            for feature in features
        }
        self._codes = [merged_codes(feature, codes[feature.owner, feature.code]) for feature in self._features]
        columns = [f.merged.woe_units[c] for f, c in zip(self._features, self._codes, strict=True)]
        empty = np.zeros((len(pooled.bad), 0), np.int64)
        self.columns = np.column_stack([empty, *columns]).astype(np.int64)
        self._kept: Sequence[int] = ()
        self._round = 0

    async def products(self) -> Ints:
        """Sums of products of WOE units."""
        train = self.columns[self._pooled.index.train]
        return train.T @ train

    async def keep(self, kept: Sequence[int]) -> None:
        """Notes which candidates stay."""
        self._kept = kept

    async def totals(self, tables: Sequence[Ints]) -> Ints:
        """Totals of the training rows, with each holder's own noise and rounding."""
        total = self._total(tables, self._pooled.index.train, perturbed=True)
        self._round += 1
        return total

    async def score(self, tables: Sequence[Ints]) -> Ints:
        """Totals of the held-out rows."""
        return self._total(tables, self._pooled.index.test, perturbed=False)

    async def by_bin(self, residual: Ints, weight: Ints) -> list[tuple[Ints, Ints]]:
        """Sums by merged bin."""
        train = self._pooled.index.train
        found = []
        for feature, codes in zip(self._features, self._codes, strict=True):
            member = codes[train][:, None] == np.arange(feature.merged.bins)
            found.append((residual @ member, weight @ member))
        return found

    def _total(self, tables: Sequence[Ints], rows: NDArray[np.bool_], *, perturbed: bool) -> Ints:
        total = np.zeros(int(rows.sum()), np.int64)
        places = dict(zip(self._kept, tables, strict=True))
        for party in dict.fromkeys(feature.owner for feature in self._features):
            mine = [place for place in self._kept if self._features[place].owner == party]
            part = partial_totals([self._codes[p][rows] for p in mine], [places[p] for p in mine], len(total))
            if perturbed and mine and party in self._pooled.draws:
                draws = RowDraws(self._pooled.draws[party], self._pooled.index.ids).of(rows)
                part = perturb(part, self._plan, draws, self._round)
            total += part
        return total


def run_synchronously(coroutine: Coroutine[Any, Any, T]) -> T:
    """Result of a coroutine that never waits.

    Raises:
        FedCreditError: it waited after all.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise FedCreditError("oracle.waited", "the plaintext oracle waited for a peer")
