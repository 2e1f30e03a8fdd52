"""The split search against a slow literal twin."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.errors import SpecError
from fedcredit.kernels.split_search import Evidence, NodeTotals, SplitRules, SplitSearch
from fedcredit.kernels.tree_model import Split, TreeFeature, canonical_split

INF = float("inf")
UNITS = (0.5, 0.125)
NONE = np.zeros(0, dtype=np.int64)


def candidates(feature: TreeFeature, weights: list[float]) -> list[tuple[int, ...]]:
    """Left sides in the order of ties."""
    if not feature.ordered:
        order = sorted(range(feature.bins), key=lambda place: (weights[place], place))
        return [tuple(order[:size]) for size in range(1, feature.bins)]
    extras = list(range(feature.ordered, feature.bins))
    groups = [[extra] for extra in extras[:2]] + ([extras[2:]] if len(extras) > 2 else [])
    found = []
    for chosen in range(2 ** len(groups)):
        moved = [extra for place, group in enumerate(groups) if chosen >> place & 1 for extra in group]
        steps = range(feature.ordered) if chosen == 0 else reversed(range(feature.ordered))
        found += [(*range(last + 1), *moved) for last in steps if last + 1 + len(moved) < feature.bins]
    return found


def score(g: float, h: float, l2: float, node: NodeTotals) -> tuple[float, float]:
    weight = min(max(-g / (h + l2), node.lower), node.upper)
    return weight, -(2 * g * weight + (h + l2) * weight**2)


def twin(
    feature: TreeFeature, g: list[int], h: list[int], node: NodeTotals, rules: SplitRules
) -> tuple[float, set[int]] | None:
    """The best gain and left side by plain enumeration."""
    sign = {"": 0, "increasing": 1, "decreasing": -1}[feature.monotone]
    light = [not b * UNITS[1] >= max(rules.min_child_weight, 1e-9) for b in h]  # neutral, as in XGBoost
    weights = [0.0 if no else -(a * UNITS[0]) / (b * UNITS[1] + rules.l2) for a, b, no in zip(g, h, light, strict=True)]
    best: tuple[float, set[int]] | None = None
    for left in candidates(feature, weights):
        g_left, h_left = sum(g[place] for place in left), sum(h[place] for place in left)
        sides = [(g_left, h_left), (node.g - g_left, node.h - h_left)]
        if any(b * UNITS[1] < rules.min_child_weight for _, b in sides):
            continue
        if any(node.rows * b < rules.min_child_rows * node.h for _, b in sides):
            continue
        if any(b * UNITS[1] + rules.l2 <= 0 for _, b in sides):
            continue
        (w_left, s_left), (w_right, s_right) = (score(a * UNITS[0], b * UNITS[1], rules.l2, node) for a, b in sides)
        both = 0 < sum(place < feature.ordered for place in left) < feature.ordered
        if both and sign * (w_right - w_left) < 0:
            continue
        gain = s_left + s_right - score(node.g * UNITS[0], node.h * UNITS[1], rules.l2, node)[1]
        if best is None or gain > best[0] + 1e-9:
            best = (gain, set(left))
    return best


def made_up(rng: np.random.Generator, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums with empty bins among them."""
    h = rng.integers(0, 40, bins) * (rng.random(bins) < 0.8)
    g = np.where(h > 0, rng.integers(-30, 31, bins), 0)
    return g.astype(np.int64), h.astype(np.int64)


SHAPES = [(6, 6), (7, 6), (8, 6), (9, 6), (11, 6), (6, 0), (9, 0), (2, 1), (3, 1), (1, 1), (2, 2), (2, 0), (5, 1)]


@pytest.mark.parametrize(
    ("shape", "monotone"),
    [(shape, way) for shape in SHAPES for way in ("", "increasing", "decreasing") if shape[1] or not way],
    ids=str,
)
@pytest.mark.parametrize("bounded", [False, True])
def test_search_is_the_literal_enumeration(shape: tuple[int, int], monotone: Any, bounded: bool) -> None:
    bins, ordered = shape
    feature = TreeFeature("bank", "F1", bins, ordered, monotone=monotone)
    rng = np.random.default_rng(bins * 100 + ordered)
    found = 0
    for trial in range(60):
        rules = SplitRules(
            l2=(0.0, 1.0, 5.0)[trial % 3],
            min_child_weight=(0.0, 1.0, 3.0)[trial // 3 % 3],
            min_child_rows=(0, 20)[trial % 2],
        )
        g, h = made_up(rng, bins)
        if not h.sum():
            continue
        lower, upper = (-0.4, 0.3) if bounded else (-INF, INF)
        node = NodeTotals(int(g.sum()), int(h.sum()), 100, lower, upper)
        search = SplitSearch([feature], [0], rules, UNITS)
        evidence = Evidence(g, h, NONE, 0.0)
        gains, choices = search.best(evidence, node, np.ones(1, dtype=np.bool_))
        expected = twin(feature, g.tolist(), h.tolist(), node, rules)
        if expected is None:
            assert gains[0] == -INF
            continue
        found += 1
        assert gains[0] == pytest.approx(expected[0], abs=1e-9)
        split = search.split_of(0, int(choices[0]), evidence)
        if not bounded:  # where both weights stand at a bound, many candidates gain the same up to rounding
            assert split == canonical_split(0, expected[1], bins)
        assert search.gain(split, evidence, node) == pytest.approx(expected[0], abs=1e-9)
        as_floats = search.best(Evidence(g.astype(float), h.astype(float), NONE, 0.0), node, np.ones(1, dtype=np.bool_))
        assert as_floats[0][0] == gains[0]
        assert as_floats[1][0] == choices[0]
    assert found > 10 or bins < 3


def test_every_partition_of_three_extras_is_tried() -> None:
    feature = TreeFeature("bank", "F1", 5, 2)
    node_rules = SplitRules(l2=0.0, min_child_weight=0.0, min_child_rows=0)
    search = SplitSearch([feature], [0], node_rules, UNITS)
    for side in itertools.chain.from_iterable(itertools.combinations(range(2, 5), size) for size in range(4)):
        for low in ((0,), (0, 1)):
            left = {*low, *side}
            if len(left) == 5:
                continue
            g = np.array([-10 if place in left else 10 for place in range(5)])
            node = NodeTotals(int(g.sum()), 40, 100, -INF, INF)
            evidence = Evidence(g, np.full(5, 8), NONE, 0.0)
            _, choices = search.best(evidence, node, np.ones(1, dtype=np.bool_))
            assert set(search.split_of(0, int(choices[0]), evidence).left) == left


def test_features_may_be_left_out_and_stand_side_by_side() -> None:
    features = [TreeFeature("bank", f"F{i}", bins, bins) for i, bins in enumerate((3, 4, 5))]
    rng = np.random.default_rng(0)
    parts = [(rng.integers(-20, 20, one.bins), rng.integers(10, 30, one.bins)) for one in features]
    for g, h in parts[1:]:  # the same totals everywhere, as in a node
        g[0] += parts[0][0].sum() - g.sum()
        h[0] += parts[0][1].sum() - h.sum()
    rules = SplitRules(min_child_rows=0)
    node = NodeTotals(int(parts[0][0].sum()), int(parts[0][1].sum()), 50, -INF, INF)
    together = SplitSearch(features, [0, 1, 2], rules, UNITS)
    both = [np.concatenate([part[line] for part in parts]) for line in (0, 1)]
    gains, choices = together.best(Evidence(both[0], both[1], NONE, 0.0), node, np.array([True, False, True]))
    assert gains[1] == -INF
    for place in (0, 2):
        alone = SplitSearch(features, [place], rules, UNITS)
        single = alone.best(Evidence(*parts[place], NONE, 0.0), node, np.ones(1, dtype=np.bool_))
        assert (single[0][0], single[1][0]) == (gains[place], choices[place])


def test_a_monotone_split_parts_the_bounds_in_the_middle() -> None:
    feature = TreeFeature("bank", "F1", 5, 4, monotone="increasing")
    search = SplitSearch([feature], [0], SplitRules(l2=0.0), UNITS)
    node = NodeTotals(-2, 80, 100, -INF, INF)
    low, high = search.children(Split(0, (0, 1)), node, (8, 40, 50))
    assert (low.g, low.h, low.rows) == (8, 40, 50)
    assert (high.g, high.h, high.rows) == (-10, 40, 50)
    assert (low.lower, high.upper) == (-INF, INF)
    assert low.upper == high.lower == (-8 * 0.5 / 5 + 10 * 0.5 / 5) / 2
    free = search.children(Split(0, (0, 1, 2, 3)), node, (8, 40, 50))  # ordered bins against the extra
    assert [(side.lower, side.upper) for side in free] == [(-INF, INF)] * 2
    falling = SplitSearch([TreeFeature("b", "F", 5, 4, monotone="decreasing")], [0], SplitRules(l2=0.0), UNITS)
    low, high = falling.children(Split(0, (0, 1)), node, (-10, 40, 50))
    assert low.lower == high.upper == (1 - 0.8) / 2


def test_noise_is_taken_off() -> None:
    """Pure noise gains nothing on average once it is debiased; bare, it does."""
    rng = np.random.default_rng(1)
    feature = TreeFeature("tax", "F1", 8, 8, foreign=True)
    h, cells = np.full(8, 4000.0), np.zeros(8, dtype=np.int64)
    node = NodeTotals(0, 32_000, 8000, -INF, INF)
    split = Split(0, (0, 1, 2))
    gains: dict[float, list[float]] = {0.0: [], 1.0: []}
    for _ in range(3000):
        g = rng.normal(size=8) * 100
        g -= g.mean()
        for debias, seen in gains.items():
            search = SplitSearch([feature], [0], SplitRules(debias=debias, caution=0.0), UNITS)
            seen.append(search.gain(split, Evidence(g, h, cells, 100.0**2), node))
    spread = 100.0**2 * 3 * 5 / 8 * UNITS[0] ** 2
    expected = spread * (1 / (3 * 500 + 1) + 1 / (5 * 500 + 1))
    assert np.mean(gains[0.0]) == pytest.approx(expected, rel=0.1)
    assert abs(np.mean(gains[1.0])) < 0.1 * expected


@pytest.mark.parametrize("ordered", [8, 5, 0])
def test_the_search_and_a_single_split_see_the_same_noise(ordered: int) -> None:
    rng = np.random.default_rng(2)
    feature = TreeFeature("tax", "F1", 8, ordered, foreign=True)
    search = SplitSearch([feature], [0], SplitRules(min_child_rows=0), UNITS)
    for _ in range(30):
        g, h = np.rint(rng.normal(size=8) * 500), np.rint(rng.uniform(1000, 3000, 8))
        cells = np.array([0, 0, 1, 1, 1, 2, 2, 1])
        evidence = Evidence(g, h, cells, 50.0**2)
        node = NodeTotals(int(g.sum()), int(h.sum()), 3000, -INF, INF)
        gains, choices = search.best(evidence, node, np.ones(1, dtype=np.bool_))
        split = search.split_of(0, int(choices[0]), evidence)
        assert search.gain(split, evidence, node) == pytest.approx(gains[0], rel=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"l2": -1.0}, {"min_child_weight": -0.1}, {"min_gain": INF}, {"debias": -1.0}, {"economy": 1.0}], ids=str
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="boost"):
        SplitRules(**wrong)  # type: ignore[arg-type]
