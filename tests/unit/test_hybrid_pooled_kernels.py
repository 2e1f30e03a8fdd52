"""Sums that several banks do in step, starts of their rows, and trees for a bank's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedcredit.errors import DataError
from fedcredit.kernels.boost_state import BoostRules, BoostState, Records
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.pooled_rows import Among, AucSums, auc_sums, bank_margin
from fedcredit.kernels.pooled_sums import Part, Summing, alone, joined
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_draws import NoDraws
from fedcredit.kernels.tree_model import BoostedTrees, Tree, TreeFeature, margins
from fedcredit.kernels.tree_parts import GrowRules
from fedcredit.kernels.trees import grow_all

ROWS = 900
RNG = np.random.default_rng(3)
CODES = RNG.integers(0, 6, (4, ROWS)).astype(np.uint8)
RISK = 0.5 * CODES[0] - 0.4 * CODES[2] + RNG.normal(size=ROWS)
BAD = RISK > 0.4
TRAIN = RNG.random(ROWS) < 0.7
BANK = RNG.integers(0, 3, ROWS)
FEATURES = tuple(TreeFeature("bank" if f < 2 else "tax", f"F{f}", 6, 6, foreign=f >= 2, thresholds=None if f < 2 else 2)
                 for f in range(4))  # fmt: skip
GROW = GrowRules("leaf", 3, 5, SplitRules(min_child_rows=20), 0.3)
RULES = BoostRules(trees=4, grow=GROW, gradient_bits=8)


def lockstep(runs: Sequence[Summing[Any]]) -> list[Any]:
    """Runs computations of several banks; the totals are plain sums, and all end together."""
    total: Any = None
    while True:
        parts: list[Part] = []
        ended: list[Any] = []
        for run in runs:
            try:
                parts.append(next(run) if total is None else run.send(total))
            except StopIteration as end:
                ended.append(end.value)
        if ended:
            assert not parts
            return ended
        assert len({(one.what, len(one.values), one.bound) for one in parts}) == 1
        assert all(int(np.abs(one.values).max()) <= one.bound for one in parts)
        total = np.sum([one.values for one in parts], axis=0)


def test_alone_a_total_is_its_own_part() -> None:
    def steps() -> Summing[int]:
        first, second = yield from joined("a", [np.arange(3), np.zeros((2, 0), np.int64)], 5)
        (third,) = yield from joined("b", [np.zeros((0, 4), np.int64)], 5)
        assert (second.shape, third.shape) == ((2, 0), (0, 4))
        return int(first.sum())

    assert alone(steps()) == 3
    assert lockstep([steps(), steps()]) == [6, 6]


def test_a_total_of_another_length_is_refused() -> None:
    run = joined("a", [np.arange(3)], 5)
    next(run)
    with pytest.raises(DataError, match=r"total of a is \(2,\)"):
        run.send(np.zeros(2, np.int64))


def test_a_banks_start_lies_between_its_own_and_the_pools_odds() -> None:
    own, pool = (30, 10), (100, 300)
    assert bank_margin(own, pool) == pytest.approx(np.log(3))
    between = [bank_margin(own, pool, weight) for weight in (0, 10, 100, 10_000)]
    assert between == sorted(between, reverse=True)
    assert between[-1] == pytest.approx(np.log(1 / 3), abs=0.02)
    assert bank_margin((5, 0), pool, 20) == pytest.approx(np.log((5 + 5) / 15))
    with pytest.raises(DataError, match="needs both"):
        bank_margin((5, 0), pool)


def test_the_mean_auc_counts_banks_by_their_rows() -> None:
    score = RISK + RNG.normal(size=ROWS)
    parts = [auc_sums(BAD[one == BANK], score[one == BANK], BANK[one == BANK]).values for one in range(3)]
    total = np.sum(parts, axis=0)
    weights = np.bincount(BANK).tolist()
    expected = np.average([auc(BAD[one == BANK], score[one == BANK]) for one in range(3)], weights=weights)
    assert AucSums.mean(total) == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(total, auc_sums(BAD, score, BANK).values)
    assert AucSums.mean(auc_sums(np.ones(4, np.bool_), np.arange(4.0), np.zeros(4, np.int64)).values) is None


def records(rows: Any, bases: Sequence[float]) -> Records:
    start = np.array(bases)[BANK[rows]]
    among = Among(float(start[0]), start, BANK[rows], 3)
    return Records(FEATURES, np.ascontiguousarray(CODES[:2, rows]), BAD[rows], TRAIN[rows], among)


def grown_in_step(bases: Sequence[float]) -> list[BoostState]:
    """Each bank over its own rows; bits and sums of the foreign features come from its own codes."""
    rows = [np.flatnonzero(one == BANK) for one in range(3)]
    states = [BoostState(records(one, bases), RULES) for one in rows]
    while not states[0].finished:
        growers = lockstep([state.growing(NoDraws(4)) for state in states])
        while not growers[0].done:
            asked = []
            for grower, own in zip(growers, rows, strict=True):
                here = CODES[2:, own]
                asked.append(
                    [
                        tuple(
                            np.concatenate([np.bincount(one, weights=v, minlength=6).astype(np.int64) for one in here])
                            for v in (question.g, question.h)
                        )
                        for question in grower.queries()
                    ]
                )
            wanted = lockstep([g.choosing(sums, 1 << 40) for g, sums in zip(growers, asked, strict=True)])
            assert wanted[0] == wanted[1] == wanted[2]
            bits = [{s: np.isin(CODES[s.feature, own], s.left) for s in wanted[0]} for own in rows]
            lockstep([g.settling(one) for g, one in zip(growers, bits, strict=True)])
        lockstep([state.adding(grower) for state, grower in zip(states, growers, strict=True)])
    return states


def test_banks_in_step_grow_the_trees_of_all_rows() -> None:
    bases = [0.4, -0.2, 0.1]
    states = grown_in_step(bases)
    together = BoostState(records(np.arange(ROWS), bases), RULES)
    grow_all(together, CODES, NoDraws(4))
    for one, state in enumerate(states):
        assert state.result().model.trees == together.result().model.trees
        assert state.history == together.history
        assert state.base == bases[one]
        assert np.array_equal(state.result().margins, together.result().margins[one == BANK])
    apart = BoostState(records(np.flatnonzero(BANK == 0), bases), RULES)
    grow_all(apart, np.ascontiguousarray(CODES[:, BANK == 0]), NoDraws(4))
    assert apart.result().model.trees != together.result().model.trees


def test_own_trees_ask_nothing_and_leave_the_pools_alone() -> None:
    state = grown_in_step([0.0, 0.0, 0.0])[1]
    before = state.result()
    search = SplitRules(min_child_rows=5)
    own = state.personal(BoostRules(trees=5, grow=GrowRules("leaf", 3, 4, search, 0.3)))
    while not own.finished:
        grower = own.next_tree(NoDraws(4))
        assert not grower.needs_foreign
        while not grower.done:
            assert grower.choose([]) == []
            grower.settle({})
        own.add(grower)
    after = own.result()
    pooled = len(before.model.trees)
    assert len(after.model.trees) == pooled + 5
    assert after.model.trees[:pooled] == before.model.trees
    assert after.model.features == before.model.features == FEATURES
    assert state.result().model == before.model
    rows = BANK == 1
    assert auc(BAD[rows & TRAIN], after.margins[TRAIN[rows]]) > auc(BAD[rows & TRAIN], before.margins[TRAIN[rows]])
    used = {after.model.splits[node.split].feature for tree in after.model.trees[pooled:] for node in tree.nodes
            if node.split >= 0}  # fmt: skip
    assert used & {2, 3}  # what was disclosed serves again
    assert np.allclose(margins(after.model, own.bits()), after.margins)
    assert isinstance(after.model, BoostedTrees)
    assert isinstance(after.model.trees[-1], Tree)


def test_starts_of_another_length_are_refused() -> None:
    among = Among(0.0, np.zeros(3), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="one for each of 900"):
        BoostState(Records(FEATURES, CODES[:2], BAD, TRAIN, among), RULES)
