"""Whatever is offered, the choice stays within every holder's budget and gives a reason for all that is left out."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcredit.kernels.selection import Budget, FeatureSummary, SelectionRules, choose_candidates

OWNERS = ("bank", "customs", "tax")
summaries = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.integers(1, 8), st.floats(0, 1), st.floats(0, 1)), max_size=14
)
budget = st.builds(Budget, st.integers(0, 20), st.integers(0, 25))


@given(
    offered=summaries,
    budgets=st.tuples(budget, budget),
    fixed=st.integers(0, 6),
    most=st.one_of(st.none(), st.integers(1, 8)),
    seed=st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_budgets_are_never_passed(
    offered: list[tuple[str, int, float, float]],
    budgets: tuple[Budget, Budget],
    fixed: int,
    most: int | None,
    seed: int,
) -> None:
    features = [FeatureSummary(o, f"F{i}", bins, iv, moved) for i, (o, bins, iv, moved) in enumerate(offered)]
    own = sum(one.owner == "bank" for one in features)
    columns = np.random.default_rng(seed).normal(size=(own + 1, 5))
    correlation = np.atleast_2d(np.corrcoef(columns))[:own, :own]
    by_owner = {"customs": budgets[0], "tax": budgets[1]}
    rules = SelectionRules(0.1, 0.8, 0.7, most, fixed)
    chosen, dropped = choose_candidates(features, "bank", correlation, by_owner, rules)
    taken = [features[place] for place in chosen]
    bins: Counter[str] = Counter()
    for one in taken:
        bins[one.owner] += one.bins
        assert one.iv >= 0.1
        assert one.stability <= 0.8
    for owner, allowed in by_owner.items():
        if bins[owner]:
            assert bins[owner] <= allowed.bins
            assert fixed + len(taken) - 1 <= allowed.equations  # each feature: the fit, and a product with each other
    assert most is None or len(taken) <= most
    left_out = {(one.owner, one.code) for one in dropped}
    assert left_out == {(one.owner, one.code) for one in features} - {(one.owner, one.code) for one in taken}
    assert chosen == sorted(chosen)
    assert all(one.reason for one in dropped)
