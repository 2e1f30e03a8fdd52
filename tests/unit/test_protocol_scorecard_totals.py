"""A holder's part of a row's total: exact, then noised and rounded without bias, and never priced too low."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.errors import BoundError
from fedcredit.kernels.woe import WOE_UNIT
from fedcredit.protocol.scorecard.partial import RowDraws, check_table, partial_totals, perturb, total_bits
from fedcredit.protocol.scorecard.plan import FIT_UNIT, FitPlan, column_costs, pairs, plan_fit
from fedcredit.spec.model import ScorecardSection
from fedcredit.wire.disclosure import CostKind

SEED = b"\x05" * 32


def plan(noise: float = 0.0, step: int = 1) -> FitPlan:
    return replace(plan_fit(ScorecardSection()), noise_units=noise, step_units=step)


def draws(rows: int, key: bytes = SEED) -> RowDraws:
    return RowDraws(key, [f"E{row}" for row in range(rows)])


def test_totals_add_the_entry_of_each_row() -> None:
    codes = [np.array([0, 1, 1], np.int32), np.array([2, 0, 1], np.int32)]
    tables = [np.array([5, -7], np.int64), np.array([100, 200, 300], np.int64)]
    assert partial_totals(codes, tables, 3).tolist() == [305, 93, 193]
    assert partial_totals([], [], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("noise", "step"), [(0.0, 100), (40.0, 1), (60.0, 100), (0.0, 7)])
def test_perturbation_is_unbiased(noise: float, step: int) -> None:
    total = np.repeat(np.array([-333, 0, 41, 150], np.int64), 40_000)
    found = perturb(total, plan(noise, step), draws(len(total)), 0)
    assert (found % step == 0).all()
    spread = math.sqrt(noise**2 + step**2 / 4 + 1)
    for value in np.unique(total):
        mean = found[total == value].mean()
        assert abs(mean - value) < 5 * spread / math.sqrt(40_000)
    error = found - total
    variance = noise**2 + float(((total % step) * (step - total % step)).mean())
    assert error.std() == pytest.approx(math.sqrt(variance), rel=0.02, abs=0.3)


def test_a_row_gets_the_same_draw_wherever_it_stands_and_another_in_each_round() -> None:
    total = np.arange(-500, 500, dtype=np.int64)
    rules, every = plan(30.0, 64), draws(len(total))
    rounds = [perturb(total, rules, every, number) for number in range(2)]
    assert not np.array_equal(rounds[0], rounds[1])
    assert np.array_equal(rounds[1], perturb(total, rules, draws(len(total)), 1))
    some = np.random.default_rng(3).random(len(total)) < 0.3
    assert np.array_equal(rounds[0][some], perturb(total[some], rules, every.of(some), 0))
    backwards = RowDraws(every.key, list(reversed(every.ids)))
    assert np.array_equal(rounds[0][::-1], perturb(total[::-1], rules, backwards, 0))
    assert not np.array_equal(rounds[0], perturb(total, rules, draws(len(total), b"\x06" * 32), 0))
    uniform = every.uniform(0)
    assert abs(np.corrcoef(*uniform)[0, 1]) < 0.2


def test_without_noise_and_rounding_nothing_changes() -> None:
    total = np.arange(-5, 5, dtype=np.int64)
    assert np.array_equal(perturb(total, plan(), draws(len(total)), 0), total)


tables = st.lists(st.lists(st.integers(-60, 60), min_size=1, max_size=4), min_size=1, max_size=3)


@given(tables=tables, step=st.integers(1, 50), seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_bits_cover_every_value_a_rounded_total_can_take(tables: list[list[int]], step: int, seed: int) -> None:
    """Counting values actually seen, over all rows there can be, each many times."""
    arrays = [np.array(table, np.int64) for table in tables]
    rows = np.array(np.meshgrid(*[np.arange(len(table)) for table in arrays], indexing="ij")).reshape(len(arrays), -1)
    codes = [row.astype(np.int32) for row in rows]
    total = np.repeat(partial_totals(codes, arrays, rows.shape[1]), 50)
    seen = perturb(total, plan(0.0, step), draws(len(total), seed.to_bytes(32, "big")), 0)
    assert len(np.unique(seen)) <= 2 ** total_bits(arrays, step) * (1 + 1e-9)


def test_bits_of_exact_totals() -> None:
    assert total_bits([np.array([0, 3]), np.array([-4, 0])], 1) == 3.0
    assert total_bits([np.array([0, 7])], 8) == 1.0  # a rounded 7 tells apart from a rounded 0
    assert total_bits([np.array([16])], 8) == 0.0
    assert total_bits([], 1) == 0.0


def test_pairs_are_all_pairs() -> None:
    assert pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert pairs(1) == pairs(0) == []


@pytest.mark.parametrize(("fit", "rounds"), [("moments", 0), ("one-step", 2), ("mle", 6)])
def test_costs_declared(fit: str, rounds: int) -> None:
    found = plan_fit(ScorecardSection.model_validate({"fit": fit}))
    assert found.rounds == rounds
    costs = column_costs(found, ["a", "b", "c"], own_columns=5, others=4)
    assert {(one.kind, one.feature): one.amount for one in costs if one.kind is CostKind.EQUATIONS} == {
        (CostKind.EQUATIONS, name): 5 + 2 + 4 + 2 * rounds for name in "abc"
    }
    (bits,) = [one.amount for one in costs if one.kind is CostKind.ROW_BITS]
    assert max(12.0, rounds * found.bits_per_total) == bits
    assert bits <= 36


def test_fine_totals_are_declared_beyond_any_cap() -> None:
    fine = plan_fit(ScorecardSection.model_validate({"fit": "mle", "total_step": 1e-6, "total_noise": 0.0}))
    (bits,) = [one.amount for one in column_costs(fine, ["a"], 1, 0) if one.kind is CostKind.ROW_BITS]
    assert bits > 36
    assert fine.step_units == 1
    coarse = plan_fit(ScorecardSection.model_validate({"fit": "mle", "total_step": 0.125, "total_noise": 0.0625}))
    assert coarse.step_units == FIT_UNIT // 8
    assert coarse.noise_units == FIT_UNIT / 16


WOE = np.array([-12, 0, 3, 31], np.int64)


@pytest.mark.parametrize("coefficient", [-2.5, 0.0, 0.37, 1.0, 9.99])
@pytest.mark.parametrize("unit", [72.13, float(1 << 20)])
def test_tables_of_one_coefficient_are_taken(coefficient: float, unit: float) -> None:
    check_table(np.rint(coefficient * WOE_UNIT * WOE * unit).astype(np.int64), WOE, unit)


@pytest.mark.parametrize(
    "table",
    [
        [-12, 1, 3, 31],  # points where WOE is 0
        [0, 1 << 8, 2 << 8, 3 << 8],  # digits
        [-12, 0, 3, -31],  # not one coefficient
        [-12 * 800, 0, 3 * 800, 31 * 800],  # a coefficient beyond the limit
    ],
)
def test_other_tables_are_refused(table: list[int]) -> None:
    with pytest.raises(BoundError, match="points"):
        check_table(np.array(table, np.int64), WOE, 72.13)
