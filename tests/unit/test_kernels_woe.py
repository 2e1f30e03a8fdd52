from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.errors import DataError, SpecError
from fedcredit.kernels.woe import (
    WOE_LIMIT_UNITS,
    WOE_UNIT,
    BinningRules,
    Monotone,
    information_value,
    merge_bins,
    weight_of_evidence,
)

Ints = NDArray[np.int64]
MODES: tuple[Monotone | None, ...] = (None, "increasing", "decreasing", "auto")


def test_weight_of_evidence_is_its_definition() -> None:
    woe = weight_of_evidence([90, 10], [20, 80], 0.5)
    assert woe[0] == pytest.approx(math.log((90.5 / 100.5) / (20.5 / 100.5)))
    assert woe[1] == pytest.approx(math.log(10.5 / 80.5))
    assert weight_of_evidence([7], [3]).tolist() == [0.0]


def test_weight_of_evidence_is_finite_without_smoothing() -> None:
    assert weight_of_evidence([5, 0, 0], [0, 5, 0], 0.0).tolist() == [5.0, -5.0, 0.0]
    assert weight_of_evidence([5, 3], [0, 0], 0.0).tolist() == [5.0, 5.0]


def test_information_value_is_its_definition() -> None:
    goods, bads = [90, 10], [20, 80]
    expected = (0.9 - 0.2) * math.log(0.9 / 0.2) + (0.1 - 0.8) * math.log(0.1 / 0.8)
    assert information_value(goods, bads, 0.0) == pytest.approx(expected)
    assert information_value([50], [10]) == 0.0


@pytest.mark.parametrize(
    ("goods", "bads"), [([1, 2], [1]), ([], []), ([1.5], [1]), ([-1, 2], [1, 2]), ([[1]], [[1]])], ids=str
)
def test_bad_counts_are_named(goods: list[int], bads: list[int]) -> None:
    with pytest.raises(DataError) as caught:
        merge_bins(goods, bads, 0, BinningRules())
    assert caught.value.code == "kernels.counts"


def test_more_ordered_bins_than_bins_is_an_error() -> None:
    with pytest.raises(DataError, match="3 ordered bins of 2"):
        merge_bins([1, 2], [1, 2], 3, BinningRules())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bins": 0},
        {"min_share": 1.0},
        {"min_goods": -1},
        {"min_bads": -1},
        {"smoothing": math.inf},
        {"monotone": "up"},
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        BinningRules(**wrong)  # type: ignore[arg-type]


def partitions(size: int) -> Iterator[list[int]]:
    """Every contiguous partition of ``size`` places as its left edges and the end."""
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, size), k) for k in range(size)):
        yield [0, *cuts, size]


def in_order(goods: list[int], bads: list[int], smoothing: float) -> bool:
    pairs = list(itertools.pairwise(zip(goods, bads, strict=True)))
    raw = all(b0 * g1 <= b1 * g0 for (g0, b0), (g1, b1) in pairs)
    return raw and all(
        (b0 + smoothing) * (g1 + smoothing) <= (b1 + smoothing) * (g0 + smoothing) for (g0, b0), (g1, b1) in pairs
    )


def brute_force(goods: Ints, bads: Ints, rules: BinningRules, monotone: Monotone | None) -> float:
    """Best information value over all admissible partitions, 0 if there is none."""
    best, total = 0.0, int(goods.sum() + bads.sum())
    for edges in partitions(goods.size):
        g = [int(goods[i:j].sum()) for i, j in itertools.pairwise(edges)]
        b = [int(bads[i:j].sum()) for i, j in itertools.pairwise(edges)]
        if len(g) > rules.max_bins or min(g) < rules.min_goods or min(b) < rules.min_bads:
            continue
        if min(x + y for x, y in zip(g, b, strict=True)) < rules.min_share * total:
            continue
        up, down = in_order(g, b, rules.smoothing), in_order(g[::-1], b[::-1], rules.smoothing)
        if monotone is None or (monotone != "decreasing" and up) or (monotone != "increasing" and down):
            best = max(best, information_value(g, b, rules.smoothing))
    return best


@pytest.mark.parametrize("monotone", MODES)
@pytest.mark.parametrize("seed", range(15))
def test_merge_finds_the_best_of_all_partitions(monotone: Monotone | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 10))
    goods, bads = rng.integers(0, 60, size), rng.integers(0, 25, size)
    bads[0] += 1
    goods[0] += 1
    rules = BinningRules(
        int(rng.integers(1, 6)), float(rng.choice([0.0, 0.05, 0.2])), 10, 5, float(rng.choice([0.0, 0.5])), monotone
    )
    merged = merge_bins(goods, bads, size, rules)
    assert merged.iv == pytest.approx(brute_force(goods, bads, rules, monotone), abs=1e-12)
    assert merged.iv == pytest.approx(information_value(merged.goods, merged.bads, rules.smoothing), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_categories_are_merged_in_the_order_of_their_bad_rates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    goods, bads = rng.integers(20, 90, 8), rng.integers(5, 40, 8)
    rules = BinningRules(3, 0.1, 10, 5)
    merged = merge_bins(goods, bads, 0, rules)
    order = np.argsort((bads + 0.5) / (goods + bads + 1), kind="stable")
    assert merged.iv == pytest.approx(brute_force(goods[order], bads[order], rules, None), abs=1e-12)
    assert np.all(np.diff(merged.group[order]) >= 0)
    assert np.all(np.diff(merged.bad_rate) >= 0)


def test_known_case() -> None:
    merged = merge_bins([100, 100, 100, 100], [5, 6, 40, 41], 4, BinningRules(2, 0.05, 5, 5, 0.5, "increasing"))
    assert merged.group.tolist() == [0, 0, 1, 1]
    assert merged.goods.tolist() == [200, 200]
    assert merged.bads.tolist() == [11, 81]
    exact = weight_of_evidence([200, 200], [11, 81])
    assert merged.woe_units.tolist() == [round(w / WOE_UNIT) for w in exact]
    assert merged.woe == pytest.approx(merged.woe_units * 0.05)
    assert merged.bad_rate == pytest.approx([11 / 211, 81 / 281])
    assert merged.bins == 2


def test_special_bins_stand_alone_or_join_the_nearest() -> None:
    goods = [300, 300, 300, 50, 30]
    bads = [30, 60, 120, 60, 3]
    merged = merge_bins(goods, bads, 3, BinningRules(min_share=0.2, min_goods=20, min_bads=20))
    # Index 3 meets the minima (and is excused from min_share); index 4 has 3 bads and the bad rate of bin 0.
    assert merged.group.tolist() == [0, 1, 2, 3, 0]
    assert merged.goods.tolist() == [330, 300, 300, 50]
    assert merged.bads.tolist() == [33, 60, 120, 60]


def test_a_thin_special_bin_does_not_break_the_order() -> None:
    goods, bads = [14, 14, 7, 15, 27, 1], [11, 18, 3, 27, 15, 29]
    free = merge_bins(goods, bads, 5, BinningRules(8, 0.0, 5, 5))
    assert free.bins > 3
    merged = merge_bins(goods, bads, 5, BinningRules(8, 0.0, 5, 5, 0.5, "increasing"))
    # The sixth is the worst of all: only the last bin can take it without passing a neighbour.
    assert merged.group.tolist() == [0, 1, 1, 2, 2, 2]
    assert np.all(np.diff(merged.bad_rate) >= 0)
    nearest = merge_bins([16, 22, 7], [16, 22, 1], 2, BinningRules(8, 0.0, 5, 5, 0.5, "increasing"))
    # Both ordered bins are equally near; taking a safe one in, the second would fall below the first.
    assert nearest.group.tolist() == [0, 1, 0]


def test_where_a_thin_special_bin_fits_nowhere_ordered_bins_are_given_up() -> None:
    rules = BinningRules(2, 0.0, 100, 10, 200.0, "increasing")
    assert merge_bins([100, 101], [10, 11], 2, rules).bins == 2
    # Raw rate above both bins, smoothed rate below both: either bin would pass the other by one of the two.
    assert merge_bins([100, 101, 40], [10, 11, 20], 2, rules).group.tolist() == [0, 0, 0]
    # With three bins it fits nowhere either; with two, the second has room for it.
    three = BinningRules(3, 0.0, 100, 10, 200.0, "increasing")
    assert merge_bins([100, 101, 100], [10, 11, 14], 3, three).bins == 3
    assert merge_bins([100, 101, 100, 40], [10, 11, 14, 20], 3, three).group.tolist() == [0, 0, 1, 1]


def test_no_admissible_partition_makes_one_bin() -> None:
    merged = merge_bins([30, 30, 900], [4, 4, 100], 2, BinningRules())
    assert merged.group.tolist() == [0, 0, 0]
    assert merged.iv == 0.0
    assert merged.woe_units.tolist() == [0]
    assert merge_bins([5, 5], [0, 0], 2, BinningRules(min_bads=0, min_goods=0)).bins == 1


def test_the_wrong_direction_makes_one_bin() -> None:
    goods, bads = [100, 100, 100], [10, 20, 30]
    assert merge_bins(goods, bads, 3, BinningRules(min_bads=5, monotone="decreasing")).bins == 1
    assert merge_bins(goods, bads, 3, BinningRules(min_bads=5, monotone="auto")).bins == 3


def test_weight_is_limited() -> None:
    merged = merge_bins([10**9, 1], [1, 10**9], 2, BinningRules(min_goods=0, min_bads=0))
    assert merged.woe_units.tolist() == [WOE_LIMIT_UNITS, -WOE_LIMIT_UNITS]


def test_equal_information_takes_fewer_bins() -> None:
    merged = merge_bins([100, 100, 100, 100], [10, 10, 40, 40], 4, BinningRules(4, 0.05, 5, 5, 0.0))
    assert merged.group.tolist() == [0, 0, 1, 1]


def test_sixty_features_are_merged_quickly() -> None:
    rng = np.random.default_rng(0)
    counts = [(rng.integers(200, 1000, 20), rng.integers(30, 300, 20)) for _ in range(60)]
    rules = BinningRules(monotone="auto")
    start = time.process_time()
    for goods, bads in counts:
        merge_bins(goods, bads, 20, rules)
    assert time.process_time() - start < 0.6  # takes about 0.07 s; the room is for a busy machine
