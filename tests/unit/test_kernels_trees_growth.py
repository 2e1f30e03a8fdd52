"""Growing trees: every option, on made-up rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.gradients import fixed_point, logistic_gradients
from fedcredit.kernels.known_splits import KnownSplits, model_bits
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.split_search import SplitRules
from fedcredit.kernels.tree_grower import GrowRules, TreeGrower, TreeSample, query_slots
from fedcredit.kernels.tree_model import (
    BoostedTrees,
    Split,
    TreeFeature,
    leaf_of,
    left_bits,
    margins,
    pooled_bits,
)
from fedcredit.kernels.trees import BoostRules, BoostState, NoDraws, Records, fit_boosted

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

ROWS, TRAIN = 3000, 2200
LEAF = GrowRules("leaf", depth=6, max_leaves=8, search=SplitRules(min_child_rows=20))
DEPTH = GrowRules("depth", depth=3, search=SplitRules(min_child_rows=20))


@dataclass(frozen=True)
class Chance:
    """Draws by seed; noise is a sum of twelve uniforms."""

    features: int
    foreign_bins: int
    amplitude: int = 0
    keep: float = 1.0
    seed: int = 0

    def _of(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *place])

    def rounding(self, tree: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rng = self._of(tree, 1)
        return rng.random(n), rng.random(n)

    def rows(self, tree: int, n: int) -> NDArray[np.float64]:
        return self._of(tree, 2).random(n)

    def columns(self, tree: int) -> Bools:
        return self._of(tree, 3).random(self.features) < self.keep

    def noise(self, tree: int, round_: int, slot: int) -> tuple[Ints, Ints] | None:
        if not self.amplitude:
            return None
        rng = self._of(tree, 4, round_, slot)
        g, h = (rng.integers(-self.amplitude, self.amplitude + 1, (12, self.foreign_bins)).sum(0) for _ in "gh")
        return g, h


def shapes(*, foreign: Sequence[int] = (), thresholds: int | None = None) -> tuple[TreeFeature, ...]:
    sizes = [(12, 12), (13, 12), (10, 0), (16, 16), (18, 16), (8, 0), (1, 1)]
    return tuple(
        TreeFeature("tax" if i in foreign else "bank", f"F{i}", bins, ordered, "", i in foreign, thresholds)
        for i, (bins, ordered) in enumerate(sizes)
    )


def made_up(seed: int = 0) -> tuple[Bytes, Bools, Bools]:
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, one.bins, ROWS) for one in shapes()]).astype(np.uint8)
    risk = codes[0] / 6 - 1 + (codes[1] == 12) + 1.5 * np.isin(codes[2], (1, 4, 7)) + (codes[3] > 9) * (codes[4] < 5)
    risk = risk + 0.7 * np.isin(codes[5], (2, 3)) - 1.5
    return codes, rng.random(ROWS) < 1 / (1 + np.exp(-risk)), np.arange(ROWS) < TRAIN


CODES, BAD, TRAINED = made_up()
MIXED = (1, 2, 4, 5)


def chance(features: Sequence[TreeFeature], **settings: Any) -> Chance:
    return Chance(len(features), sum(one.bins for one in features if one.foreign), **settings)


def same_trees(one: BoostedTrees, other: BoostedTrees) -> bool:
    return (one.base, one.splits, one.trees) == (other.base, other.splits, other.trees)


@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
@pytest.mark.parametrize("bits", [None, 8, 3])
def test_it_does_not_matter_who_holds_a_column(grow: GrowRules, bits: int | None) -> None:
    rules = BoostRules(trees=6, grow=grow, gradient_bits=bits)
    own = fit_boosted(shapes(), CODES, BAD, TRAINED, rules, chance(shapes()))
    for foreign in (MIXED, tuple(range(7))):
        features = shapes(foreign=foreign)
        split_up = fit_boosted(features, CODES, BAD, TRAINED, rules, chance(features))
        assert same_trees(split_up.model, own.model)
        assert np.array_equal(split_up.margins, own.margins)
    assert own.history[-1].validation_auc == auc(BAD[~TRAINED], own.margins[~TRAINED])


@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
def test_the_order_of_rows_does_not_matter(grow: GrowRules) -> None:
    order = np.random.default_rng(1).permutation(ROWS)
    rules = BoostRules(trees=5, grow=grow)
    here = fit_boosted(shapes(), CODES, BAD, TRAINED, rules)
    there = fit_boosted(shapes(), np.ascontiguousarray(CODES[:, order]), BAD[order], TRAINED[order], rules)
    assert same_trees(here.model, there.model)
    assert np.array_equal(here.margins[order], there.margins)


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
def test_the_model_gives_the_margins(grow: GrowRules, noise: float) -> None:
    features = shapes(foreign=MIXED, thresholds=2)
    rules = BoostRules(trees=6, grow=grow, gradient_bits=8, noise_rows=noise, row_sampling=0.7)
    boosted = fit_boosted(features, CODES, BAD, TRAINED, rules, chance(features, amplitude=int(noise * 64), keep=0.8))
    bits = pooled_bits(boosted.model, CODES)
    assert np.array_equal(margins(boosted.model, bits), boosted.margins)
    assert boosted.best_tree == 5
    assert len(boosted.history) == 6
    assert len(set(boosted.model.splits)) == len(boosted.model.splits)
    used = [node.split for tree in boosted.model.trees for node in tree.nodes if node.split >= 0]
    assert list(dict.fromkeys(used)) == list(range(len(boosted.model.splits)))


def test_nodes_say_what_is_in_them() -> None:
    boosted = fit_boosted(shapes(), CODES, BAD, TRAINED, BoostRules(trees=1, grow=DEPTH))
    (tree,), bits = boosted.model.trees, pooled_bits(boosted.model, CODES)
    g, h = logistic_gradients(np.full(ROWS, boosted.model.base), BAD)
    leaf = leaf_of(tree, bits)
    for number, node in enumerate(tree.nodes):
        if node.split >= 0:
            left, right = tree.nodes[node.left], tree.nodes[node.right]
            assert node.rows == left.rows + right.rows
            assert node.weight == pytest.approx(left.weight + right.weight, rel=1e-12)
            assert (node.gain > 0) == (node.value == 0.0)
            continue
        inside = (leaf == number) & TRAINED
        assert node.rows == inside.sum() >= 20
        assert node.weight == pytest.approx(h[inside].sum(), rel=1e-9)
        assert node.value == pytest.approx(-0.3 * g[inside].sum() / (h[inside].sum() + 1), rel=1e-9)
    assert tree.nodes[0].rows == TRAIN


def test_quantised_leaves_come_from_exact_gradients() -> None:
    rules = BoostRules(trees=1, grow=DEPTH, gradient_bits=2)
    boosted = fit_boosted(shapes(), CODES, BAD, TRAINED, rules, chance(shapes()))
    g, h = logistic_gradients(np.full(ROWS, boosted.model.base), BAD)
    leaf = leaf_of(boosted.model.trees[0], pooled_bits(boosted.model, CODES))
    for number in set(leaf.tolist()):
        inside = (leaf == number) & TRAINED
        value = boosted.model.trees[0].nodes[number].value
        assert value == pytest.approx(-0.3 * g[inside].sum() / (h[inside].sum() + 1), rel=1e-9)


@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_monotone_means_monotone(grow: GrowRules, direction: Any) -> None:
    """Also against the data, with extras, and with coarse gradients that would have leaves out of order."""
    rng = np.random.default_rng(2)
    features = [replace(one, monotone=direction) if one.ordered else one for one in shapes(foreign=MIXED)]
    for bits, amplitude in ((None, 0), (3, 0), (8, 100)):
        rules = BoostRules(trees=12, grow=grow, gradient_bits=bits, noise_rows=amplitude / 64)
        model = fit_boosted(features, CODES, BAD, TRAINED, rules, chance(features, amplitude=amplitude)).model
        for feature in (0, 1, 3, 4):
            rows = np.repeat(rng.permutation(ROWS)[:80], features[feature].ordered)
            varied = np.ascontiguousarray(CODES[:, rows])
            varied[feature] = np.tile(np.arange(features[feature].ordered), 80)
            steps = np.diff(margins(model, pooled_bits(model, varied)).reshape(80, -1), axis=1)
            assert (steps >= 0).all() if direction == "increasing" else (steps <= 0).all()


def test_the_free_model_is_not_monotone() -> None:
    model = fit_boosted(shapes(), CODES, BAD, TRAINED, BoostRules(trees=12, grow=DEPTH)).model
    rows = np.ascontiguousarray(np.repeat(CODES[:, :80], 12, axis=1))
    rows[0] = np.tile(np.arange(12), 80)
    steps = np.diff(margins(model, pooled_bits(model, rows)).reshape(80, -1), axis=1)
    assert (steps < 0).any()


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
@pytest.mark.parametrize("cap", [0, 1, 3])
def test_no_more_is_disclosed_than_the_cap(grow: GrowRules, noise: float, cap: int) -> None:
    features = shapes(foreign=MIXED, thresholds=cap)
    rules = BoostRules(trees=10, grow=grow, gradient_bits=8, noise_rows=noise)
    draws = chance(features, amplitude=int(noise * 64))
    state, disclosed = grown(features, rules, draws)
    for feature in MIXED:
        assert sum(split.feature == feature for split in disclosed) == state.known.used(feature) <= cap
    model = state.result().model
    foreign = [split for split in model.splits if features[split.feature].foreign]
    assert bool(foreign) == (cap > 0)
    assert all(split in state.known for split in foreign)
    bits = model_bits(
        model, own_codes(features), {split: left_bits(split, CODES[split.feature]) for split in disclosed}
    )
    assert np.array_equal(bits, pooled_bits(model, CODES))
    assert np.array_equal(bits, state.bits())
    assert np.array_equal(bits[~TRAINED], state.bits(~TRAINED))


def own_codes(features: Sequence[TreeFeature]) -> Bytes:
    return np.ascontiguousarray(CODES[[not one.foreign for one in features]])


def grown(features: Sequence[TreeFeature], rules: BoostRules, draws: Chance) -> tuple[BoostState, list[Split]]:
    """The oracle's loop in the open, with what was asked for."""
    state = BoostState(Records(tuple(features), own_codes(features), BAD, TRAINED), rules)
    disclosed: list[Split] = []
    while not state.finished:
        grow_tree(state, draws, disclosed)
    return state, disclosed


def answer(grower: TreeGrower, draws: Chance, features: Sequence[TreeFeature], at: tuple[int, int]) -> list[Any]:
    answers = []
    for slot, columns in enumerate(grower.queries()):
        sums = []
        for vector in (columns.g, columns.h):
            parts = [
                np.bincount(CODES[i], weights=vector, minlength=one.bins)
                for i, one in enumerate(features)
                if one.foreign
            ]
            sums.append(np.concatenate(parts).astype(np.int64))
        noise = draws.noise(*at, slot)
        answers.append((sums[0], sums[1]) if noise is None else (sums[0] + noise[0], sums[1] + noise[1]))
    return answers


def grow_tree(state: BoostState, draws: Chance, disclosed: list[Split]) -> None:
    features, slots = state.records.features, query_slots(state.rules.grow)
    grower, round_, tree = state.next_tree(draws), 0, len(state.history)
    while not grower.done:
        asked = grower.asked
        answers = answer(grower, draws, features, (tree, round_))
        assert len(answers) <= slots[round_]
        assert grower.needs_foreign or not answers
        foreign = np.array(
            [asked[i] for i, one in enumerate(features) if one.foreign for _ in range(one.bins)], dtype=int
        )
        wanted = grower.choose([(g * foreign, h * foreign) for g, h in answers])  # what is not asked is not looked at
        assert len(set(wanted)) == len(wanted)
        assert not any(split in state.known for split in wanted)
        disclosed += wanted
        grower.settle({split: left_bits(split, CODES[split.feature]) for split in wanted})
        round_ += 1
    assert grower.queries() == []
    assert grower.choose([]) == []
    grower.settle({})
    state.add(grower)


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
def test_the_open_loop_is_the_oracle(grow: GrowRules, noise: float) -> None:
    features = shapes(foreign=MIXED, thresholds=3)
    rules = BoostRules(trees=8, grow=grow, gradient_bits=8, noise_rows=noise, first_trees_local=2, row_sampling=0.8)
    draws = chance(features, amplitude=int(noise * 64), keep=0.8)
    state, _ = grown(features, rules, draws)
    oracle = fit_boosted(features, CODES, BAD, TRAINED, rules, draws)
    assert same_trees(state.result().model, oracle.model)
    assert np.array_equal(state.result().margins, oracle.margins)
    local = [
        state.result().model.splits[n.split] for tree in oracle.model.trees[:2] for n in tree.nodes if n.split >= 0
    ]
    assert local
    assert not any(features[split.feature].foreign for split in local)


def test_with_all_disclosed_nobody_is_asked() -> None:
    features = shapes(foreign=MIXED, thresholds=1)
    state, disclosed = grown(features, BoostRules(trees=12, grow=DEPTH), chance(features))
    assert len(disclosed) == len(MIXED)
    grower = state.next_tree(chance(features))
    assert not grower.needs_foreign
    assert grower.queries() == []
    assert not grower.done


def test_slots_do_not_depend_on_the_tree() -> None:
    assert query_slots(GrowRules("depth", depth=1)) == (1,)
    assert query_slots(GrowRules("depth", depth=4)) == (1, 1, 2, 4)
    assert query_slots(GrowRules("leaf", depth=4, max_leaves=5)) == (1, 1, 1, 1)


@pytest.mark.parametrize("grow", [DEPTH, LEAF], ids=["depth", "leaf"])
def test_trees_keep_to_their_shape(grow: GrowRules) -> None:
    boosted = fit_boosted(shapes(), CODES, BAD, TRAINED, BoostRules(trees=4, grow=grow))
    for tree in boosted.model.trees:
        depth = [0] * len(tree.nodes)
        for number, node in enumerate(tree.nodes):
            for child in (node.left, node.right):
                if child >= 0:
                    assert child > number
                    depth[child] = depth[number] + 1
        assert max(depth) <= grow.depth
        assert tree.leaves <= 8
        assert min(node.rows for node in tree.nodes) >= 10
    assert max(tree.leaves for tree in boosted.model.trees) == 8


def test_leaf_wise_takes_the_leaf_that_gains_most() -> None:
    rules = [BoostRules(trees=1, grow=replace(LEAF, max_leaves=count)) for count in (2, 3, 4, 5, 6)]
    gains = []
    for one in rules:
        (tree,) = fit_boosted(shapes(), CODES, BAD, TRAINED, one).model.trees
        gains.append(sum(node.gain for node in tree.nodes))
    steps = np.diff(gains)
    assert (steps > 0).all()
    deep = fit_boosted(shapes(), CODES, BAD, TRAINED, BoostRules(trees=1, grow=replace(DEPTH, depth=1)))
    assert deep.model.trees[0].nodes[0].gain == gains[0]


def test_early_stopping_cuts_back_to_the_best_tree() -> None:
    rules = BoostRules(trees=60, grow=replace(DEPTH, learning_rate=1.0), early_stopping=4)
    boosted = fit_boosted(shapes(), CODES, BAD, TRAINED, rules)
    scores = [record.validation_auc or 0 for record in boosted.history]
    assert boosted.best_tree == int(np.argmax(scores)) == len(boosted.history) - 1 - 4
    assert len(boosted.model.trees) == boosted.best_tree + 1 < 56
    assert np.array_equal(boosted.margins, margins(boosted.model, pooled_bits(boosted.model, CODES)))
    assert auc(BAD[~TRAINED], boosted.margins[~TRAINED]) == max(scores)
    free = fit_boosted(shapes(), CODES, BAD, TRAINED, replace(rules, early_stopping=0, trees=len(boosted.history)))
    assert free.model.trees[: boosted.best_tree + 1] == boosted.model.trees
    assert free.model.splits[: len(boosted.model.splits)] == boosted.model.splits


def test_rows_and_columns_are_sampled() -> None:
    rules = BoostRules(trees=5, grow=DEPTH, row_sampling=0.5)
    draws = chance(shapes(), keep=0.5, seed=3)
    boosted = fit_boosted(shapes(), CODES, BAD, TRAINED, rules, draws)
    for number, tree in enumerate(boosted.model.trees):
        assert tree.nodes[0].rows == int((TRAINED & (draws.rows(number, ROWS) < 0.5)).sum())
        allowed = draws.columns(number)
        assert all(allowed[boosted.model.splits[node.split].feature] for node in tree.nodes if node.split >= 0)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(noise: float) -> None:
    features = shapes(foreign=MIXED, thresholds=3)
    rules = BoostRules(trees=7, grow=DEPTH, gradient_bits=8, noise_rows=noise, early_stopping=5)
    draws = chance(features, amplitude=int(noise * 64))
    whole, _ = grown(features, rules, draws)
    for stop in (0, 1, 4):
        state = BoostState(Records(features, own_codes(features), BAD, TRAINED), rules)
        for _ in range(stop):
            grow_tree(state, draws, [])
        resumed = BoostState.from_state(state.records, rules, state.to_state())
        while not resumed.finished:
            grow_tree(resumed, draws, [])
        assert same_trees(resumed.result().model, whole.result().model)
        assert np.array_equal(resumed.result().margins, whole.result().margins)
        assert resumed.history == whole.history
        assert np.array_equal(resumed.bits(), whole.bits())


def test_a_checkpoint_of_other_rows_is_refused() -> None:
    state, _ = grown(shapes(), BoostRules(trees=1, grow=DEPTH), chance(shapes()))
    records = Records(shapes(), np.ascontiguousarray(CODES[:, 1:]), BAD[1:], TRAINED[1:])
    with pytest.raises(DataError, match="checkpoint"):
        BoostState.from_state(records, state.rules, state.to_state())


def test_nothing_to_learn_leaves_a_leaf() -> None:
    features = (TreeFeature("bank", "F1", 3, 3), TreeFeature("tax", "F1", 1, 1, foreign=True))
    codes = np.zeros((2, ROWS), dtype=np.uint8)
    boosted = fit_boosted(features, codes, BAD, TRAINED, BoostRules(trees=2, grow=DEPTH))
    assert boosted.model.splits == ()
    assert [len(tree.nodes) for tree in boosted.model.trees] == [1, 1]
    assert np.allclose(boosted.margins, boosted.model.base, atol=1e-9)


def test_noise_is_met_with_caution() -> None:
    """Where foreign columns are worthless, noise does not get them chosen, and the model stays that of own columns."""
    features = shapes(foreign=MIXED, thresholds=3)
    codes = CODES.copy()
    rng = np.random.default_rng(3)
    for feature in MIXED:
        codes[feature] = rng.permutation(codes[feature])
    rules = BoostRules(trees=8, grow=DEPTH, gradient_bits=8, noise_rows=8.0)
    noisy = fit_boosted(features, codes, BAD, TRAINED, rules, chance(features, amplitude=512))
    reckless = replace(rules, grow=replace(DEPTH, search=SplitRules(min_child_rows=20, debias=0, caution=0, economy=0)))
    bare = fit_boosted(features, codes, BAD, TRAINED, reckless, chance(features, amplitude=512))

    def foreign(model: BoostedTrees) -> int:
        return sum(features[split.feature].foreign for split in model.splits)

    assert foreign(noisy.model) <= 2
    assert foreign(bare.model) > foreign(noisy.model)


@pytest.mark.parametrize("cap", [None, 3])
def test_a_limited_disclosure_must_gain_clearly_more(cap: int | None) -> None:
    """The own column is a slightly worse copy of the foreign one."""
    features = (TreeFeature("bank", "F1", 2, 2), TreeFeature("tax", "F1", 2, 2, "", foreign=True, thresholds=cap))
    foreign = BAD ^ (np.random.default_rng(4).random(ROWS) < 0.3)
    codes = np.stack([foreign ^ (np.arange(ROWS) % 60 == 0), foreign]).astype(np.uint8)
    first = []
    for economy in (0.0, 0.2):
        grow = GrowRules(depth=1, search=SplitRules(economy=economy))
        model = fit_boosted(features, codes, BAD, TRAINED, BoostRules(trees=1, grow=grow)).model
        first.append(model.splits[0].feature)
    assert first == [1, 1 if cap is None else 0]


def test_noisy_categories_are_not_partitioned_by_their_noise() -> None:
    """Without debias and caution, what keeps a worthless category out is that it is drawn to what is known of it."""
    n, bins = 4000, 30
    rng = np.random.default_rng(5)
    codes, bad = rng.integers(0, bins, (1, n), dtype=np.uint8), rng.random(n) < 0.3
    rules = BoostRules(
        trees=1,
        grow=GrowRules(depth=1, search=SplitRules(debias=0, caution=0, economy=0, min_gain=20.0)),
        gradient_bits=8,
        noise_rows=10.0,
    )
    features = (TreeFeature("tax", "F1", bins, 0, "", foreign=True),)
    disclosed = 0
    for seed in range(10):
        state = BoostState(Records(features, codes[:0], bad, np.ones(n, dtype=np.bool_)), rules)
        draws = chance(features, amplitude=635, seed=seed)
        grower = state.next_tree(draws)
        (query,) = grower.queries()
        noise = draws.noise(0, 0, 0)
        assert noise is not None
        g, h = (
            np.bincount(codes[0], vector, bins) + off for vector, off in zip((query.g, query.h), noise, strict=True)
        )
        disclosed += len(grower.choose([(g, h)]))
    assert disclosed <= 3


def test_noise_that_hides_little_costs_little() -> None:
    features = shapes(foreign=MIXED, thresholds=3)
    rules = BoostRules(trees=12, grow=DEPTH, gradient_bits=8)
    exact = fit_boosted(features, CODES, BAD, TRAINED, rules, chance(features)).history[-1]
    noisy = [
        fit_boosted(
            features, CODES, BAD, TRAINED, replace(rules, noise_rows=1.0), chance(features, amplitude=64, seed=seed)
        ).history[-1]
        for seed in range(4)
    ]
    assert np.mean([one.validation_auc for one in noisy]) > (exact.validation_auc or 0) - 0.01


def sample(features: Sequence[TreeFeature], **changes: Any) -> TreeSample:
    g, h = logistic_gradients(np.zeros(ROWS), BAD)
    given = {"g": g, "h": h, "quantised": fixed_point(g, h), "train": TRAINED, "active": np.ones(7, dtype=np.bool_)}
    return TreeSample(**{**given, **changes})


def grower_of(features: Sequence[TreeFeature], codes: Bytes, **changes: Any) -> TreeGrower:
    return TreeGrower(features, codes, KnownSplits(features, ROWS), DEPTH, sample(features, **changes))


def test_what_does_not_fit_is_refused() -> None:
    features = shapes()
    with pytest.raises(DataError, match="one row for each of 7"):
        grower_of(features, CODES[:3])
    with pytest.raises(DataError, match="does not fit codes"):
        grower_of(features, np.ascontiguousarray(CODES[:, 1:]))
    with pytest.raises(DataError, match="active one for each of 7"):
        grower_of(features, CODES, active=np.ones(3, dtype=np.bool_))
    beyond = CODES.copy()
    beyond[2, 5] = 200
    with pytest.raises(DataError, match="bank/F2 has a bin beyond its 10 bins"):
        grower_of(features, beyond)


def test_answers_and_bits_must_be_those_asked_for() -> None:
    features = shapes(foreign=MIXED)
    grower = grower_of(features, own_codes(features))
    with pytest.raises(DataError, match="not finished"):
        grower.finish()
    with pytest.raises(DataError, match="0 answers"):
        grower.choose([])
    with pytest.raises(DataError, match="1 answers"):
        grower.choose([(np.zeros(3), np.zeros(3))])
    (wanted,) = grower.choose(answer(grower, chance(features), features, (0, 0)))
    with pytest.raises(DataError, match="bits of 0 splits"):
        grower.settle({})
    grower.settle({wanted: left_bits(wanted, CODES[wanted.feature])})
    assert len(grower.queries()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GrowRules(depth=0),
        lambda: GrowRules(depth=13),
        lambda: GrowRules(max_leaves=1),
        lambda: GrowRules(learning_rate=0.0),
        lambda: BoostRules(trees=0),
        lambda: BoostRules(row_sampling=0.0),
        lambda: BoostRules(noise_rows=1.0),
        lambda: BoostRules(early_stopping=-1),
    ],
)
def test_rules_out_of_range_are_refused(wrong: Any) -> None:
    with pytest.raises(SpecError):
        wrong()


def test_labels_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(DataError, match="both"):
        fit_boosted(shapes(), CODES, np.zeros(ROWS, dtype=np.bool_), TRAINED, BoostRules())
    with pytest.raises(DataError, match="early stopping"):
        fit_boosted(shapes(), CODES, BAD, np.ones(ROWS, dtype=np.bool_), BoostRules(early_stopping=2))
    with pytest.raises(DataError, match="one a feature"):
        fit_boosted(shapes(), CODES[:2], BAD, TRAINED, BoostRules())
    with pytest.raises(DataError, match="must be bool"):
        fit_boosted(shapes(), CODES, BAD[1:], TRAINED, BoostRules())
    assert (
        fit_boosted(shapes(), CODES, BAD, np.ones(ROWS, dtype=np.bool_), BoostRules(trees=1)).history[0].validation_auc
        is None
    )


def test_draws_of_nothing() -> None:
    draws = NoDraws(3)
    assert draws.rows(0, 2).tolist() == [0, 0]
    assert draws.columns(0).tolist() == [True] * 3
    assert draws.noise(0, 0, 0) is None
    assert draws.rounding(0, 2)[1].tolist() == [0.5, 0.5]


@pytest.mark.slow
def test_a_million_rows_take_a_second() -> None:
    """A depth-3 tree over 30 columns in 32 bins; the bound leaves room for a busy machine."""
    rng = np.random.default_rng(0)
    n = 1_000_000
    features = tuple(TreeFeature("bank", f"F{i}", 32, 32) for i in range(30))
    codes = rng.integers(0, 32, (30, n), dtype=np.uint8)
    bad = rng.random(n) < 0.1 + 0.01 * codes[3]
    state = BoostState(Records(features, codes, bad, np.ones(n, dtype=np.bool_)), BoostRules(trees=3, gradient_bits=8))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        grower = state.next_tree(chance(features))
        while not grower.done:
            grower.settle(dict.fromkeys(grower.choose([]), bad))
        state.add(grower)
        times.append(time.perf_counter() - begin)
    assert min(times) < 2.0
