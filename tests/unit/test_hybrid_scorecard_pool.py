"""Decisions on totals over banks, against what one house with all rows would find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from fedcredit.errors import BoundError, DataError, PeerError
from fedcredit.kernels.discriminant import Moments
from fedcredit.kernels.newton import WeightedSums
from fedcredit.kernels.prebin import Prebins
from fedcredit.kernels.selection import Budget
from fedcredit.kernels.woe import MergedBins
from fedcredit.protocol.bin.features import BinnedFeature, CountedFeature, LabelCounts, OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.hybrid.scorecard_bins import own_woe, pooled_bins
from fedcredit.protocol.hybrid.scorecard_decisions import PooledDecisions
from fedcredit.protocol.hybrid.scorecard_steps import PooledSteps
from fedcredit.protocol.hybrid.totals import total_reals
from fedcredit.protocol.pool import Alone, Pool, UnsafeLocalPools
from fedcredit.protocol.scorecard.candidates import Offer
from fedcredit.protocol.scorecard.decisions import Decided, Evaluated, OneBank, Steps
from fedcredit.protocol.scorecard.plan import plan_fit
from fedcredit.spec.horizontal import HybridSection
from fedcredit.spec.model import BinSection, ScorecardSection
from fedcredit.types import PartyId

T = TypeVar("T")
Floats = NDArray[np.float64]

BANKS = (PartyId("agri"), PartyId("metro"), PartyId("zeta"))
TAX = PartyId("tax_office")
RIDGE = 1.0


def together(role: Callable[[PartyId, Pool], Coroutine[Any, Any, T]], banks: Sequence[PartyId] = BANKS) -> list[T]:
    async def run() -> list[T]:
        pools = UnsafeLocalPools(banks)
        return await asyncio.gather(*(role(bank, pools.pool(bank)) for bank in banks))

    return asyncio.run(run())


@dataclass(frozen=True)
class Rows:
    """One bank's rows: columns that differ from bank to bank, and as many goods as its own intercept gives."""

    x: Floats
    good: Floats

    @classmethod
    def made(cls, place: int) -> Rows:
        rng = np.random.default_rng(place)
        n = (1500, 400, 150)[place]
        x = rng.normal(size=(n, 3)) + place * np.array([0.8, -0.5, 0.0])
        total = (1.5, -1.0, 0.2)[place] + x @ np.array([0.9, 0.4, -0.3])
        return cls(x, (rng.random(n) < 1 / (1 + np.exp(-total))).astype(np.float64))

    @property
    def moments(self) -> Moments:
        goods = int(self.good.sum())
        return Moments(
            goods, len(self.x) - goods, self.good @ self.x, (1 - self.good) @ self.x, np.asarray(self.x.T @ self.x)
        )

    def evaluated(self, point: Floats, total: Floats) -> Evaluated:
        p = 1 / (1 + np.exp(-total))
        w, residual = p * (1 - p), self.good - p
        gradient = np.concatenate([[residual.sum()], residual @ self.x])
        return Evaluated(point, total, gradient, WeightedSums(float(w.sum()), w @ self.x, w @ self.x**2))


async def fitted(rows: Rows, steps: Steps, rounds: int) -> Decided:
    decided = await steps.start()
    for _ in range(rounds):
        best, total = await steps.best(decided.point, decided.point[0] + rows.x @ decided.point[1:])
        decided = await steps.step(rows.evaluated(best, total))
    return steps.finish(decided)[0]


def optimum(all_rows: Sequence[Rows], *, own: bool) -> Floats:
    """The penalised maximum over all rows: common coefficients, one intercept a bank or one for all."""
    groups = np.concatenate([np.full(len(one.x), place if own else 0) for place, one in enumerate(all_rows)])
    x, good = np.concatenate([one.x for one in all_rows]), np.concatenate([one.good for one in all_rows])
    count = int(groups.max()) + 1

    def lost(point: Floats) -> float:
        total = point[:count][groups] + x @ point[count:]
        penalty = 0.5 * RIDGE * point[count:] @ point[count:]
        return float(np.logaddexp(0, np.where(good > 0, -total, total)).sum() + penalty)

    return np.asarray(minimize(lost, np.zeros(count + 3), method="BFGS", options={"gtol": 1e-6}).x)


@pytest.mark.parametrize("own", [True, False])
def test_the_common_maximum_is_reached(*, own: bool) -> None:
    rows = dict(zip(BANKS, (Rows.made(place) for place in range(3)), strict=True))
    hybrid = HybridSection(own_intercepts=own, slope_ridge=0.0)

    async def role(bank: PartyId, pool: Pool) -> Decided:
        mine = rows[bank]
        return await fitted(mine, PooledSteps(pool, hybrid, mine.moments, mine.good, RIDGE, ()), 6)

    points = np.array([one.point for one in together(role)])
    best = optimum(list(rows.values()), own=own)
    np.testing.assert_allclose(points[:, 1:], np.tile(best[-3:], (3, 1)), atol=2e-3)
    np.testing.assert_allclose(points[:, 0], best[:-3] if own else np.repeat(best[0], 3), atol=4e-3)
    assert np.ptp(points[:, 1:], axis=0).max() == 0


def test_a_pool_of_one_bank_steps_as_one_bank() -> None:
    rows = Rows.made(0)
    hybrid = HybridSection(own_intercepts=False, slope_ridge=0.0)
    pooled = PooledSteps(Alone(BANKS[0]), hybrid, rows.moments, rows.good, RIDGE, ())
    alone = OneBank().steps([], rows.moments, rows.good, RIDGE)
    mine, theirs = (asyncio.run(fitted(rows, steps, 2)) for steps in (pooled, alone))
    np.testing.assert_allclose(mine.point, theirs.point, atol=1e-4)
    np.testing.assert_allclose(mine.information, theirs.information, rtol=1e-4)


@pytest.mark.parametrize(("ridge", "near"), [(1e7, "pool"), (1e-3, "own")])
def test_own_coefficients_lie_between_the_pools_and_the_banks(ridge: float, near: str) -> None:
    rows = dict(zip(BANKS, (Rows.made(place) for place in range(3)), strict=True))

    async def role(bank: PartyId, pool: Pool, slope_ridge: float) -> Decided:
        mine, hybrid = rows[bank], HybridSection(slope_ridge=slope_ridge)
        return await fitted(mine, PooledSteps(pool, hybrid, mine.moments, mine.good, RIDGE, ()), 4)

    first = together(lambda bank, pool: role(bank, pool, ridge))[0]
    common = together(lambda bank, pool: role(bank, pool, 0.0))[0]
    own = optimum([rows[BANKS[0]]], own=False)
    if near == "pool":
        np.testing.assert_allclose(first.point, common.point, atol=1e-3)
    else:
        assert np.abs(first.point - own).max() < 0.3 * np.abs(common.point - own).max()


@pytest.mark.parametrize("constant", [0.0, 1.35])
def test_a_column_of_one_value_at_one_bank_is_no_obstacle(constant: float) -> None:
    rows = {bank: Rows.made(place) for place, bank in enumerate(BANKS)}
    rows[BANKS[1]].x[:, 1] = constant
    hybrid = HybridSection(slope_ridge=0.0)

    async def role(bank: PartyId, pool: Pool) -> Decided:
        mine = rows[bank]
        return await fitted(mine, PooledSteps(pool, hybrid, mine.moments, mine.good, RIDGE, ()), 6)

    points = np.array([one.point for one in together(role)])
    best = optimum(list(rows.values()), own=True)
    np.testing.assert_allclose(points[:, 1:], np.tile(best[-3:], (3, 1)), atol=3e-3)


def shape(code: str, bins: int) -> FeatureShape:
    return FeatureShape(code=code, bins=bins, ordered=bins, monotone="")


def counts(goods: Sequence[int], bads: Sequence[int]) -> LabelCounts:
    rows = np.array(goods) + np.array(bads)
    return LabelCounts(np.array(bads), rows, rows)


RULES = BinSection(min_share=0.0, min_goods=1, min_bads=1)


def test_a_bin_is_not_credited_with_the_bank_that_fills_it() -> None:
    """Within each bank the column says nothing; but one bank has most of its rows in the second bin, and few bads."""
    by_bank = {BANKS[0]: counts([90, 810], [10, 90]), BANKS[1]: counts([300, 30], [600, 60])}
    banks = BANKS[:2]

    async def role(bank: PartyId, pool: Pool, *, own: bool) -> BinnedFeature:
        hybrid = HybridSection(own_intercepts=own, woe_rows=0.0)
        found = await pooled_bins(pool, bank, [CountedFeature(TAX, shape("F1", 2), by_bank[bank])], RULES, hybrid)
        return found.features[0]

    weighted = together(lambda bank, pool: role(bank, pool, own=True), banks)[0]
    plain = together(lambda bank, pool: role(bank, pool, own=False), banks)[0]
    assert weighted.merged.iv < 1e-4
    assert plain.merged.iv > 0.5


def test_each_bank_keeps_its_counts_and_all_have_one_grouping() -> None:
    rng = np.random.default_rng(0)
    by_bank = {b: counts(rng.integers(5, 90, 6).tolist(), rng.integers(5, 90, 6).tolist()) for b in BANKS}

    async def role(bank: PartyId, pool: Pool) -> BinnedFeature:
        one = CountedFeature(bank, shape("F1", 6), by_bank[bank])
        return (await pooled_bins(pool, bank, [one], RULES, HybridSection())).features[0]

    found = together(role)
    for bank, feature in zip(BANKS, found, strict=True):
        assert np.array_equal(feature.merged.group, found[0].merged.group)
        assert feature.merged.bads.sum() == by_bank[bank].bads.sum()
        assert feature.test_rows.sum() == by_bank[bank].test_rows.sum()
    assert len({tuple(feature.merged.woe_units) for feature in found}) > 1


def test_banks_with_other_features_are_refused() -> None:
    async def role(bank: PartyId, pool: Pool) -> object:
        one = CountedFeature(TAX, shape("F1" if bank != BANKS[2] else "F2", 2), counts([9, 9], [9, 9]))
        return await pooled_bins(pool, bank, [one], RULES, HybridSection())

    with pytest.raises(PeerError, match="different sums"):
        together(role)


def test_an_empty_bin_has_the_pools_woe() -> None:
    bins = MergedBins(np.arange(3), np.array([0, 50, 50]), np.array([0, 10, 40]), np.array([-12, 10, -10]), 0.3)
    units = own_woe(bins, 100.0)
    assert units[0] == -12
    assert units[1] > units[2]


def test_the_smallest_budget_of_any_bank_limits_all() -> None:
    merged = MergedBins(np.arange(2), np.array([50, 20]), np.array([10, 20]), np.array([5, -5]), 0.4)
    own = OwnFeature("x", shape("F1", 2), Prebins("numeric", edges=(1.0,)), np.array([0, 1] * 50, np.int32))

    def offer(bank: PartyId) -> Offer:
        held = [BinnedFeature(TAX, shape(f"F{i}", 2), merged, 0.0, merged.goods) for i in range(3)]
        budget = Budget(9.0 if bank == BANKS[1] else np.inf, 3.0 if bank == BANKS[2] else np.inf)
        binned = [BinnedFeature(bank, shape("F1", 2), merged, 0.0, merged.goods), *held]
        rules = ScorecardSection()
        return Offer(binned, [own], np.ones(100, np.bool_), {TAX: budget}, rules, plan_fit(rules))

    async def role(bank: PartyId, pool: Pool) -> tuple[list[tuple[str, str]], list[tuple[str, str, str, float]]]:
        decisions = PooledDecisions(pool, bank, HybridSection())
        found = await decisions.candidates(offer(bank))
        kept = [("bank" if f.owner == bank else f.owner, f.code) for f in found.features]
        return kept, [("bank" if d.owner == bank else d.owner, d.code, d.reason, d.limit) for d in found.dropped]

    found = together(role)
    assert all(one == found[0] for one in found)
    assert found[0] == ([("bank", "F1"), (TAX, "F0")], [(TAX, "F1", "bins", 3.0), (TAX, "F2", "bins", 3.0)])


@pytest.mark.parametrize(("value", "error"), [(np.nan, DataError), (np.inf, DataError), (2.0**33, BoundError)])
def test_sums_that_cannot_be_added_are_refused(value: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="card"):
        asyncio.run(total_reals(Alone(BANKS[0]), "card", np.array([value])))
