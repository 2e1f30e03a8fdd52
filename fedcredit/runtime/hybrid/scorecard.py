"""The scorecard of a hybrid run, compared: each bank by itself, with all holders, all rows pooled, and all together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from fedcredit.errors import DataError
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.pool import UnsafeLocalPools
from fedcredit.protocol.scorecard.roles import LabelResult, decide, own_features
from fedcredit.runtime.hybrid.compare import Compared, HybridOutcome, Scores
from fedcredit.runtime.hybrid.oracle import BankRows, HybridTables, hybrid_scorecards
from fedcredit.runtime.scorecard.oracle import Pooled, PooledResult, decided_scorecard, pool, pooled_scorecard
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId

__all__ = ["compare_scorecards"]


def compare_scorecards(there: HybridOutcome) -> Compared:
    """Every model on every bank's held-out rows."""
    results: dict[PartyId, LabelResult] = {bank: one.results[bank] for bank, one in there.outcomes.items()}
    risk: dict[str, Scores] = {}
    own, with_holders = _apart(there, results)
    common = {"woe_rows": 0.0, "slope_ridge": 0.0}
    together = _together(there, results, there.spec)
    risk["own"], risk["own_holders"] = own, with_holders
    risk["pooled"] = _scores(_own_columns(there, results, _hybrid(there.spec, own_intercepts=False, **common)))
    risk["hybrid"] = _scores(_together(there, results, _hybrid(there.spec, **common)))
    risk["personal"] = {bank: _risk(label.fitted.scores) for bank, label in results.items()}
    tests = {bank: label.index.test for bank, label in results.items()}
    return Compared(
        risk=risk,
        bad={bank: label.bad[tests[bank]].astype(np.int64) for bank, label in results.items()},
        ids={
            bank: tuple(one for one, test in zip(label.index.ids, tests[bank], strict=True) if test)
            for bank, label in results.items()
        },
        main="personal",
        equal=all(np.array_equal(label.fitted.scores, together[bank].fitted.scores) for bank, label in results.items()),
        facts=_facts(results),
    )


def _hybrid(spec: RunSpec, **changes: float | bool) -> RunSpec:
    return spec.model_copy(update={"hybrid": spec.hybrid.model_copy(update=changes)})


def _risk(scores: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return -scores.astype(np.float64)


def _scores(results: Mapping[PartyId, PooledResult]) -> Scores:
    return {bank: _risk(one.fitted.scores) for bank, one in results.items()}


def _apart(there: HybridOutcome, results: Mapping[PartyId, LabelResult]) -> tuple[Scores, Scores]:
    """Each bank by itself, without and with the feature holders; in bins of its own rows."""
    own, with_holders = {}, {}
    for bank, label in results.items():
        spec = there.spec.for_bank(bank)
        tables = {party: there.tables[party] for party in spec.parties}
        pooled = pool(label, spec, tables, there.keep(bank))
        try:
            own[bank] = _risk(pooled_scorecard(pooled, {}, [bank]).fitted.scores)
        except DataError:  # none of its columns passes the selection: every row is as risky as any other
            own[bank] = np.zeros(int(label.index.test.sum()))
        with_holders[bank] = _risk(pooled_scorecard(pooled, label.budgets, [bank, *label.budgets]).fitted.scores)
    return own, with_holders


def _together(
    there: HybridOutcome, results: Mapping[PartyId, LabelResult], spec: RunSpec
) -> dict[PartyId, PooledResult]:
    """The run's own steps in the clear, under a spec that may say otherwise what is a bank's own."""
    records = HybridTables(spec, there.tables, there.common)
    rows = {bank: BankRows(label.index, label.bad, label.budgets, there.keep(bank)) for bank, label in results.items()}
    return hybrid_scorecards(records, rows)


def _own_columns(
    there: HybridOutcome, results: Mapping[PartyId, LabelResult], spec: RunSpec
) -> dict[PartyId, PooledResult]:
    """All rows of all banks with the banks' columns alone."""

    async def one(bank: PartyId, label: LabelResult, pools: UnsafeLocalPools) -> PooledResult:
        own = spec.for_bank(bank)
        holding = Holding(own, "", there.tables[bank], there.keep(bank)[bank], pool=pools.pool(bank))
        columns = {bank: await own_features(holding, label.index)}
        pooled = Pooled(own, label.index, label.bad, columns, {})
        return await decided_scorecard(pooled, {}, [bank], decide(holding))

    async def together() -> list[PooledResult]:
        pools = UnsafeLocalPools(list(results))
        return await asyncio.gather(*(one(bank, label, pools) for bank, label in results.items()))

    return dict(zip(results, asyncio.run(together()), strict=True))


def _facts(results: Mapping[PartyId, LabelResult]) -> tuple[str, ...]:
    first = next(iter(results.values()))
    kept, offered = len(first.fitted.features), len(first.binned.features)
    return (f"{kept} of {offered} features were selected, by all banks together.",)
