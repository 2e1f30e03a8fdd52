"""What holds of every boosted model, whatever the columns, rules and draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.kernels.histogram import bin_offsets, histogram
from fedcredit.kernels.known_splits import KnownSplits
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_grower import GrowRules, query_slots
from fedcredit.kernels.tree_model import Split, TreeFeature, canonical_split, leaf_of, left_bits, margins, pooled_bits
from fedcredit.kernels.trees import Boosted, BoostRules, BoostState, Draws, Records, fit_boosted

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    features: tuple[TreeFeature, ...]
    codes: Bytes
    bad: Bools
    train: Bools
    rules: BoostRules
    seed: int

    def rounding(self, tree: int, n: int) -> tuple[Floats, Floats]:
        rng = np.random.default_rng([self.seed, tree, 1])
        return rng.random(n), rng.random(n)

    def rows(self, tree: int, n: int) -> Floats:
        return np.random.default_rng([self.seed, tree, 2]).random(n)

    def columns(self, tree: int) -> Bools:
        return np.random.default_rng([self.seed, tree, 3]).random(len(self.features)) < 0.9

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        a = int(self.rules.noise / 2)
        if not a:
            return None
        bins = sum(one.bins for one in self.features if one.foreign)
        g, h = np.random.default_rng([self.seed, tree, round_, slot]).integers(-a, a + 1, (2, 12, bins)).sum(1)
        return g, h

    def fit(self) -> Boosted:
        draws: Draws = self
        return fit_boosted(self.features, self.codes, self.bad, self.train, self.rules, draws)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def feature(number: int) -> TreeFeature:
        bins = draw(st.integers(1, 9))
        ordered = draw(st.integers(0, bins))
        way: Any = draw(st.sampled_from(["", "increasing", "decreasing"])) if ordered else ""
        foreign = draw(st.booleans())
        cap = draw(st.sampled_from([None, 0, 1, 2, 3])) if foreign else None
        return TreeFeature("tax" if foreign else "bank", f"F{number}", bins, ordered, way, foreign, cap)

    features = tuple(feature(number) for number in range(draw(st.integers(1, 6))))
    seed, n = draw(st.integers(0, 10**6)), draw(st.integers(40, 300))
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, one.bins, n) for one in features]).astype(np.uint8)
    bad = rng.random(n) < 0.2 + 0.6 * (codes[0] % 2)
    bad[:2] = [True, False]
    train = rng.random(n) < 0.8
    train[:2] = True
    search = SplitRules(
        l2=draw(st.sampled_from([0.0, 1.0])),
        min_child_weight=draw(st.sampled_from([0.0, 1.0])),
        min_child_rows=draw(st.sampled_from([0, 5])),
    )
    growth: Any = draw(st.sampled_from(["depth", "leaf"]))
    grow = GrowRules(growth, draw(st.integers(1, 4)), draw(st.integers(2, 9)), search)
    bits = draw(st.sampled_from([None, 2, 8]))
    noise = draw(st.sampled_from([0.0, 1.0])) if bits == 8 else 0.0
    sampling = draw(st.sampled_from([1.0, 0.7]))
    rules = BoostRules(draw(st.integers(1, 4)), grow, bits, sampling, draw(st.integers(0, 2)), 0, noise)
    return Case(features, codes, bad, train, rules, seed)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_model_is_whole(case: Case) -> None:
    boosted = case.fit()
    model = boosted.model
    for split in model.splits:
        bins = model.features[split.feature].bins
        assert split == canonical_split(split.feature, split.left, bins)
        assert split.left[0] == 0
        assert list(split.left) == sorted(set(split.left))
        assert len(split.left) < bins
    assert len(set(model.splits)) == len(model.splits)
    bits = pooled_bits(model, case.codes)
    assert np.array_equal(margins(model, bits), boosted.margins)
    assert np.isfinite(boosted.margins).all()
    for number, tree in enumerate(model.trees):
        counted = case.train
        if case.rules.row_sampling < 1:
            counted = counted & (case.rows(number, counted.size) < case.rules.row_sampling)
        leaf = leaf_of(tree, bits)
        assert all(tree.nodes[place].split < 0 for place in set(leaf.tolist()))
        rows = np.bincount(leaf[counted], minlength=len(tree.nodes))
        for place, node in enumerate(tree.nodes):
            if node.split < 0:
                assert (node.rows, node.gain, node.left, node.right) == (rows[place], 0.0, -1, -1)
            else:
                assert node.rows == tree.nodes[node.left].rows + tree.nodes[node.right].rows
                assert node.gain > case.rules.grow.search.min_gain
                assert node.value == 0.0


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_same_draws_give_the_same_bits(case: Case) -> None:
    one, other = case.fit(), case.fit()
    assert one.model == other.model
    assert one.margins.tobytes() == other.margins.tobytes()


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 3))
def test_a_checkpoint_gives_the_same_further_trees(case: Case, stop: int) -> None:
    own = np.ascontiguousarray(case.codes[[not one.foreign for one in case.features]])
    records = Records(case.features, own, case.bad, case.train)
    state = BoostState(records, case.rules)
    while not state.finished:
        if len(state.history) == stop:
            state = BoostState.from_state(records, case.rules, state.to_state())
        grow_one(state, case)
    assert state.result().model == case.fit().model
    assert np.array_equal(state.result().margins, case.fit().margins)


def grow_one(state: BoostState, case: Case) -> None:
    """One tree, with sums taken in the plainest way and no more queries than slots."""
    tree, round_ = len(state.history), 0
    grower, slots = state.next_tree(case), query_slots(case.rules.grow)
    while not grower.done:
        answers = []
        for slot, columns in enumerate(grower.queries()):
            assert slot < slots[round_]
            foreign = [(codes, one.bins) for codes, one in zip(case.codes, case.features, strict=True) if one.foreign]
            g, h = (
                np.concatenate([[v[codes == place].sum() for place in range(bins)] for codes, bins in foreign])
                for v in (columns.g, columns.h)
            )
            noise = case.noise(tree, round_, slot)
            answers.append((g, h) if noise is None else (g + noise[0], h + noise[1]))
        wanted = grower.choose(answers)
        grower.settle({split: left_bits(split, case.codes[split.feature]) for split in reversed(wanted)})
        round_ += 1
    assert round_ <= len(slots)
    for number, feature in enumerate(case.features):
        assert feature.thresholds is None or state.known.used(number) <= feature.thresholds
    state.add(grower)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 10), st.integers(0, 10), st.lists(st.sets(st.integers(0, 9), min_size=1), max_size=4))
def test_known_splits_are_the_unions_of_cells(bins: int, ordered: int, sides: list[set[int]]) -> None:
    """Any split whose bits are a function of the disclosed bits is known, and no other."""
    feature = TreeFeature("tax", "F1", bins, min(ordered, bins), foreign=True)
    codes = np.arange(bins, dtype=np.uint8)
    known = KnownSplits([feature], bins)
    for side in sides:
        inside = side & set(range(bins))
        if not inside or len(inside) == bins or canonical_split(0, inside, bins) in known.splits:
            continue
        split = canonical_split(0, inside, bins)
        known.add(split, left_bits(split, codes))
    seen = {tuple(known.bits[:, place].tolist()) for place in range(bins)}
    assert known.cells(0).max() + 1 == len(seen)
    assert known.codes.tolist() == ([known.cells(0).tolist()] if len(known) else [])
    for number in range(1, 2 ** (bins - 1)):
        left = (0, *(place for place in range(1, bins) if number >> (place - 1) & 1))
        if len(left) == bins:
            continue
        parted = {tuple(known.bits[:, place].tolist()) for place in left}
        rest = {tuple(known.bits[:, place].tolist()) for place in range(bins) if place not in left}
        assert (Split(0, left) in known) == (not parted & rest)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_histograms_add_up(seed: int, n: int, bins: list[int]) -> None:
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, count, n) for count in bins]).astype(np.uint8)
    g, h = rng.integers(-(2**40), 2**40, n), rng.integers(0, 2**38, n)
    side = rng.random(n) < 0.4
    whole, left, right = (
        histogram(codes, bin_offsets(bins), sum(bins), np.flatnonzero(mask), g, h)
        for mask in (np.ones(n, dtype=np.bool_), side, ~side)
    )
    assert np.array_equal(left + right, whole)
    for start, count in zip(bin_offsets(bins), bins, strict=True):
        assert whole[:, start : start + count].sum(axis=1).tolist() == [g.sum(), h.sum()]
