from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.kernels.woe import BinningRules, MergedBins, information_value, merge_bins, weight_of_evidence

Ints = NDArray[np.int64]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Ints, Ints, int, BinningRules]:
    size = draw(st.integers(1, 14))
    counts = st.lists(st.integers(0, 400), min_size=size, max_size=size)
    goods, bads = np.array(draw(counts), dtype=np.int64), np.array(draw(counts), dtype=np.int64)
    rules = BinningRules(
        max_bins=draw(st.integers(1, 8)),
        min_share=draw(st.sampled_from([0.0, 0.05, 0.2])),
        min_goods=draw(st.integers(0, 60)),
        min_bads=draw(st.integers(0, 60)),
        smoothing=draw(st.sampled_from([0.0, 0.5, 2.0])),
        monotone=draw(st.sampled_from([None, "increasing", "decreasing", "auto"])),
    )
    return goods, bads, draw(st.integers(0, size)), rules


def ordered_part(merged: MergedBins, ordered: int) -> int:
    return int(merged.group[:ordered].max()) + 1 if ordered else merged.bins


@settings(max_examples=300, deadline=None)
@given(cases())
def test_constraints_hold_and_counts_are_kept(case: tuple[Ints, Ints, int, BinningRules]) -> None:
    goods, bads, ordered, rules = case
    merged = merge_bins(goods, bads, ordered, rules)
    for bin_ in range(merged.bins):
        assert merged.goods[bin_] == goods[merged.group == bin_].sum()
        assert merged.bads[bin_] == bads[merged.group == bin_].sum()
    assert merged.goods.sum() == goods.sum()
    assert merged.bads.sum() == bads.sum()
    assert set(merged.group.tolist()) == set(range(merged.bins))
    assert np.abs(merged.woe_units).max() <= 100
    assert merged.iv >= 0.0
    if ordered:
        steps = np.diff(merged.group[:ordered])
        assert np.isin(steps, (0, 1)).all()
        assert merged.group[0] == 0
    if merged.bins == 1:
        return
    bins = ordered_part(merged, ordered)
    assert bins <= rules.max_bins
    assert merged.goods.min() >= rules.min_goods
    assert merged.bads.min() >= rules.min_bads
    assert (merged.goods + merged.bads)[:bins].min() >= rules.min_share * (goods.sum() + bads.sum()) * (1 - 1e-9)
    exact = weight_of_evidence(merged.goods, merged.bads, rules.smoothing)
    assert np.abs(np.clip(exact, -5, 5) - merged.woe).max() <= 0.025 + 1e-12
    if ordered and rules.monotone is not None:
        rises = bool(np.all(np.diff(merged.bad_rate[:bins]) >= 0) and np.all(np.diff(merged.woe_units[:bins]) <= 0))
        falls = bool(np.all(np.diff(merged.bad_rate[:bins]) <= 0) and np.all(np.diff(merged.woe_units[:bins]) >= 0))
        assert {"increasing": rises, "decreasing": falls, "auto": rises or falls}[rules.monotone]


def greedy(goods: Ints, bads: Ints, rules: BinningRules) -> float | None:
    """Join the pair that loses the least IV until the constraints hold; None if they never do."""
    g, b = goods.tolist(), bads.tolist()
    total = sum(g) + sum(b)

    def admissible() -> bool:
        enough = all(
            x >= rules.min_goods and y >= rules.min_bads and x + y >= max(rules.min_share * total, 1)
            for x, y in zip(g, b, strict=True)
        )
        return enough and len(g) <= rules.max_bins

    while len(g) > 1 and not admissible():
        tries = [
            information_value(
                [*g[:i], g[i] + g[i + 1], *g[i + 2 :]], [*b[:i], b[i] + b[i + 1], *b[i + 2 :]], rules.smoothing
            )
            for i in range(len(g) - 1)
        ]
        i = int(np.argmax(tries))
        g[i : i + 2], b[i : i + 2] = [g[i] + g[i + 1]], [b[i] + b[i + 1]]
    return information_value(g, b, rules.smoothing) if admissible() else None


@settings(max_examples=150, deadline=None)
@given(cases())
def test_never_below_the_greedy_merge(case: tuple[Ints, Ints, int, BinningRules]) -> None:
    goods, bads, _, rules = case
    free = BinningRules(rules.max_bins, rules.min_share, rules.min_goods, rules.min_bads, rules.smoothing)
    if goods.sum() == 0 or bads.sum() == 0:
        return
    reached = greedy(goods, bads, free)
    merged = merge_bins(goods, bads, goods.size, free)
    if reached is not None:
        assert merged.iv >= reached - 1e-9


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_tighter_rule_never_gains(case: tuple[Ints, Ints, int, BinningRules]) -> None:
    goods, bads, _, rules = case
    free = BinningRules(rules.max_bins, rules.min_share, rules.min_goods, rules.min_bads, rules.smoothing)
    assert merge_bins(goods, bads, goods.size, rules).iv <= merge_bins(goods, bads, goods.size, free).iv + 1e-9
