"""Gradients, histograms, the model as data, and known splits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from fedcredit.errors import BoundError, DataError
from fedcredit.kernels import gradients
from fedcredit.kernels.denoise import fit_to_cells, shrink_to_cells
from fedcredit.kernels.gradients import (
    EXACT_BITS,
    base_margin,
    fixed_point,
    gradient_bound,
    logistic_gradients,
    quantise,
)
from fedcredit.kernels.histogram import bin_offsets, histogram
from fedcredit.kernels.known_splits import KnownSplits, model_bits
from fedcredit.kernels.tree_model import (
    BoostedTrees,
    Node,
    Split,
    Tree,
    TreeFeature,
    canonical_split,
    gain_by_feature,
    leaf_of,
    left_bits,
    margins,
    pooled_bits,
    splits_by_feature,
)

Bools = NDArray[np.bool_]


def exact_logistic(margin: float) -> tuple[float, float]:
    with localcontext() as context:
        context.prec = 60
        rest = 1 / (1 + Decimal(margin).exp())
        return float(1 - rest), float((1 - rest) * rest)


@pytest.mark.parametrize("margin", [0.0, 1e-300, 0.3, -0.3, 3.0, -7.5, 36.7, -36.7, 40.0, -700.0, 700.0])
def test_logistic_gradients_are_those_of_the_loss(margin: float) -> None:
    g, h = logistic_gradients(np.array([margin, margin]), np.array([False, True]))
    p, slope = exact_logistic(margin)
    assert g[0] == pytest.approx(p, rel=1e-15)
    assert g[1] == pytest.approx(-exact_logistic(-margin)[0], rel=1e-15)
    assert h.tolist() == pytest.approx([slope, slope], rel=1e-15)


def test_margins_beyond_every_number_stay_finite() -> None:
    g, h = logistic_gradients(np.array([1e5, -1e5]), np.array([False, False]))
    assert g[0] == 1.0
    assert 0 < g[1] < 1e-300
    assert (h >= 0).all()


def test_the_loops_use_no_fused_arithmetic() -> None:
    fresh = njit(error_model="numpy")(gradients._logistic.py_func)  # type: ignore[attr-defined]
    fresh(np.zeros(3), np.zeros(3, dtype=np.bool_), np.zeros(3), np.zeros(3))
    (signature,) = fresh.signatures
    assert "fma" not in fresh.inspect_asm(signature)
    assert "div" in fresh.inspect_asm(signature)


def test_base_margin_is_the_log_odds() -> None:
    assert base_margin(1, 1) == 0.0
    assert base_margin(3, 97) == pytest.approx(math.log(3 / 97), rel=1e-15)
    with pytest.raises(DataError, match="both"):
        base_margin(0, 5)


def test_rounding_is_unbiased_and_bounded() -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    p = np.full(n, 0.30371)
    bad = rng.random(n) < 0.3
    g, h = np.where(bad, p - 1, p), p * (1 - p)
    for bits in (2, 4, 8, 16):
        q = quantise(g, h, bits, (rng.random(n), rng.random(n)))
        bound = gradient_bound(bits)
        assert np.abs(q.g).max() <= bound
        assert 0 <= q.h.min() <= q.h.max() <= bound
        assert (np.abs(q.g * q.g_unit - g) < q.g_unit).all()
        assert (np.abs(q.h * q.h_unit - h) < q.h_unit).all()
        assert abs((q.g * q.g_unit - g).mean()) < 4 * q.g_unit / math.sqrt(n)
        assert abs((q.h * q.h_unit - h).mean()) < 4 * q.h_unit / math.sqrt(n)


def test_rounding_at_the_ends_stays_inside() -> None:
    g, h = np.array([-1.0, 1.0, 0.0]), np.array([0.0, 0.25, 0.25])
    almost_one = np.full(3, np.nextafter(1.0, 0.0))
    q = quantise(g, h, 8, (almost_one, almost_one))
    assert q.g[0] in {-127, -126}
    assert q.g.tolist()[1:] == [127, 0]
    assert q.h.tolist() == [0, 127, 127]


def test_fixed_point_is_near_exact() -> None:
    rng = np.random.default_rng(1)
    g, h = rng.uniform(-1, 1, 1000), rng.uniform(0, 0.25, 1000)
    q = fixed_point(g, h)
    assert np.abs(q.g * q.g_unit - g).max() <= 2.0 ** -(EXACT_BITS + 1)
    assert np.abs(q.h * q.h_unit - h).max() <= 2.0 ** -(EXACT_BITS + 1)


@pytest.mark.parametrize("bits", [1, 33])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(BoundError, match="give 2 to 32"):
        gradient_bound(bits)


def test_gradients_refuse_what_is_no_margin() -> None:
    with pytest.raises(DataError, match="equal vectors"):
        logistic_gradients(np.zeros(3), np.zeros(2, dtype=np.bool_))
    with pytest.raises(DataError, match="not finite"):
        logistic_gradients(np.array([np.nan]), np.zeros(1, dtype=np.bool_))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_histogram_is_the_plain_sum(dtype: Any, index: Any) -> None:
    rng = np.random.default_rng(2)
    bins, n = [3, 7, 1, 200], 500
    codes = np.stack([rng.integers(0, count, n) for count in bins]).astype(dtype)
    g, h = rng.integers(-(2**40), 2**40, n), rng.integers(0, 2**38, n)
    rows = np.flatnonzero(rng.random(n) < 0.4).astype(index)
    sums = histogram(codes, bin_offsets(bins), sum(bins), rows, g, h)
    expected = np.zeros((2, sum(bins)), dtype=np.int64)
    for feature, start in enumerate([0, 3, 10, 11]):
        for row in rows:
            expected[0, start + codes[feature, row]] += g[row]
            expected[1, start + codes[feature, row]] += h[row]
    assert np.array_equal(sums, expected)


def test_a_child_by_subtraction_is_the_child() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 16, (4, 300), dtype=np.uint8)
    g, h = rng.integers(-127, 128, 300), rng.integers(0, 128, 300)
    side = rng.random(300) < 0.3
    parts = [np.flatnonzero(mask).astype(np.int32) for mask in (np.ones(300, np.bool_), side, ~side)]
    whole, left, right = (histogram(codes, bin_offsets([16] * 4), 64, rows, g, h) for rows in parts)
    assert np.array_equal(whole - left, right)


def test_histogram_refuses_what_does_not_fit() -> None:
    rows, g = np.arange(4), np.zeros(4, dtype=np.int64)
    with pytest.raises(DataError, match="contiguous"):
        histogram(np.zeros((4, 2), dtype=np.uint8).T, bin_offsets([1, 1]), 2, rows, g, g)
    with pytest.raises(DataError, match="gradients"):
        histogram(np.zeros((1, 5), dtype=np.uint8), bin_offsets([1]), 1, rows, g, g)


FEATURES = (TreeFeature("bank", "F1", 4, 3), TreeFeature("tax", "F1", 5, 0, foreign=True))
SPLITS = (Split(0, (0, 3)), Split(1, (0, 2, 4)))
TREE = Tree(
    (
        Node(10, 2.0, 5.0, 0, 1, 2, 0.0),
        Node(6, 1.2, 3.0, 1, 3, 4, 0.0),
        Node(4, 0.8, 0.0, -1, -1, -1, 0.5),
        Node(3, 0.6, 0.0, -1, -1, -1, -0.25),
        Node(3, 0.6, 0.0, -1, -1, -1, 0.125),
    )
)
MODEL = BoostedTrees(-1.0, FEATURES, SPLITS, (TREE, TREE))
CODES = np.array([[0, 3, 3, 1, 2], [0, 1, 4, 0, 3]], dtype=np.uint8)


def test_rows_find_their_leaf() -> None:
    bits = pooled_bits(MODEL, CODES)
    assert bits.tolist() == [[True, True], [True, False], [True, True], [False, True], [False, False]]
    assert leaf_of(TREE, bits).tolist() == [3, 4, 3, 2, 2]
    assert margins(MODEL, bits).tolist() == [-1.5, -0.75, -1.5, 0.0, 0.0]
    assert TREE.leaves == 3


def test_gains_and_splits_are_counted_by_feature() -> None:
    assert gain_by_feature(MODEL).tolist() == [10.0, 6.0]
    assert splits_by_feature(MODEL).tolist() == [2, 2]


def test_bits_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="one column a split"):
        margins(MODEL, np.zeros((3, 1), dtype=np.bool_))
    with pytest.raises(DataError, match="one column a split"):
        leaf_of(TREE, np.zeros((3, 2), dtype=np.uint8).view(np.int8))


def test_splits_are_written_in_one_way() -> None:
    assert canonical_split(3, [2, 1], 4) == canonical_split(3, {3, 0}, 4) == Split(3, (0, 3))
    for side in ([], range(4), [0, 4], [-1]):
        with pytest.raises(DataError, match="empty"):
            canonical_split(3, side, 4)


def test_bins_beyond_those_of_the_split_go_right() -> None:
    assert left_bits(Split(0, (0, 1)), np.array([0, 1, 2, 9], dtype=np.uint8)).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bins": 0},
        {"ordered": 9},
        {"ordered": -1},
        {"ordered": 0, "monotone": "increasing"},
        {"thresholds": -1},
    ],
    ids=str,
)
def test_a_feature_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="feature bank/F1"):
        TreeFeature(**{"owner": "bank", "code": "F1", "bins": 4, "ordered": 4, **wrong})  # type: ignore[arg-type]


def known_of(splits: list[Split], codes: NDArray[np.uint8], features: tuple[TreeFeature, ...]) -> KnownSplits:
    known = KnownSplits(features, codes.shape[1])
    for split in splits:
        known.add(split, left_bits(split, codes[split.feature]))
    return known


def test_what_follows_from_disclosed_splits_is_known() -> None:
    features = (FEATURES[0], TreeFeature("tax", "F1", 6, 0, foreign=True, thresholds=3))
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 6, (2, 200), dtype=np.uint8)
    first, second = Split(1, (0, 1, 2)), Split(1, (0, 3))
    known = known_of([first, second], codes, features)
    assert known.cells(1).tolist() == [0, 1, 1, 2, 3, 3]
    follows = [first, second, Split(1, (0,)), Split(1, (0, 4, 5)), Split(1, (0, 1, 2, 3))]
    for split in follows:
        assert split in known
        assert np.array_equal(known.bits_of(split), left_bits(split, codes[1]))
    for split in (Split(1, (0, 1)), Split(1, (0, 3, 4)), Split(0, (0, 1))):
        assert split not in known
        with pytest.raises(DataError, match="not known"):
            known.bits_of(split)
    assert known.follows(Split(1, (0, 3, 4)), [Split(1, (0, 4))])
    assert known.used(1) == 2
    assert known.room(1) == 1
    assert known.room(0) is None
    assert known.index_of(second) == 1
    assert np.array_equal(known.bits[1].view(np.bool_), left_bits(second, codes[1]))
    with pytest.raises(DataError, match="not disclosed"):
        known.index_of(Split(1, (0,)))


def test_cells_of_an_ordered_feature_stay_in_order() -> None:
    features = (TreeFeature("tax", "F1", 8, 6, foreign=True, monotone="increasing"),)
    codes = np.arange(8, dtype=np.uint8)[np.newaxis]
    known = known_of([Split(0, (0, 1, 2, 3, 7)), Split(0, (0, 1, 6, 7))], codes, features)
    assert known.cells(0).tolist() == [0, 0, 1, 1, 2, 2, 3, 0]
    assert known.coarse(0) == TreeFeature("tax", "F1", 4, 3, foreign=True, monotone="increasing")
    assert known.fine(Split(0, (0, 1))) == Split(0, (0, 1, 2, 3, 7))
    assert known.codes.tolist() == [[0, 0, 1, 1, 2, 2, 3, 0]]


def test_splits_are_added_once_and_only_to_foreign_features() -> None:
    known = known_of([SPLITS[1]], CODES, FEATURES)
    with pytest.raises(DataError, match="disclosed or not foreign"):
        known.add(SPLITS[1], np.zeros(5, dtype=np.bool_))
    with pytest.raises(DataError, match="disclosed or not foreign"):
        known.add(SPLITS[0], np.zeros(5, dtype=np.bool_))
    with pytest.raises(DataError, match="bool 5 are needed"):
        known.add(Split(1, (0,)), np.zeros(4, dtype=np.bool_))
    assert len(known) == 1


def test_many_splits_find_room() -> None:
    features = tuple(TreeFeature("tax", f"F{i}", 3, 3, foreign=True) for i in range(20))
    codes = np.random.default_rng(5).integers(0, 3, (20, 50), dtype=np.uint8)
    splits = [Split(i, left) for i in range(20) for left in ((0,), (0, 1))]
    known = known_of(splits, codes, features)
    assert known.splits == tuple(splits)
    for split in splits:
        assert np.array_equal(known.bits_of(split), left_bits(split, codes[split.feature]))


def test_cells_beyond_a_byte() -> None:
    features = (TreeFeature("tax", "F1", 400, 400, foreign=True),)
    codes = np.arange(400, dtype=np.uint16)[np.newaxis]
    known = KnownSplits(features, 400)
    for last in range(399):
        split = Split(0, tuple(range(last + 1)))
        known.add(split, left_bits(split, codes[0]))
    assert known.codes[0].tolist() == list(range(400))


def test_bits_of_other_rows_follow_from_the_disclosed_ones() -> None:
    tree = Tree((Node(2, 1.0, 1.0, 0, 1, 2, 0.0), *TREE.nodes[3:]))
    model = BoostedTrees(0.0, FEATURES, (Split(1, (0, 4)), SPLITS[0]), (tree,))
    disclosed = [Split(1, (0, 2, 4)), Split(1, (0, 1, 4))]
    bits = model_bits(model, CODES[:1], {split: left_bits(split, CODES[1]) for split in disclosed})
    assert np.array_equal(bits, pooled_bits(model, CODES))
    with pytest.raises(DataError, match="not known"):
        model_bits(model, CODES[:1], {disclosed[0]: left_bits(disclosed[0], CODES[1])})


def test_noisy_sums_agree_with_their_cells() -> None:
    rng = np.random.default_rng(6)
    cells = np.array([0, 0, 1, 1, 1, 2])
    sums = rng.normal(size=6)
    kept = sums.copy()
    fit_to_cells(sums, cells, np.array([5, -3, 2]))
    assert [sums[cells == cell].sum() for cell in range(3)] == pytest.approx([5, -3, 2])
    moved = sums - kept
    assert all(np.ptp(moved[cells == cell]) < 1e-12 for cell in range(3))


def test_fitting_to_cells_is_least_squares() -> None:
    rng = np.random.default_rng(7)
    cells = np.array([0, 0, 0, 1, 1])
    truth = np.array([4, 1, -2, 7, 3])
    exact = np.array([3, 10])
    left = [0, 3]
    errors = []
    for _ in range(4000):
        noisy = truth + rng.normal(size=5)
        fit_to_cells(noisy, cells, exact)
        errors.append(noisy[left].sum() - truth[left].sum())
    assert np.var(errors) == pytest.approx(1 * 2 / 3 + 1 * 1 / 2, rel=0.1)


def test_categories_of_pure_noise_are_drawn_together_and_clear_ones_left() -> None:
    rng = np.random.default_rng(8)
    h = np.full(16, 1000.0)
    cells = np.zeros(16, dtype=np.int64)
    loud, quiet = rng.normal(size=16) * 1000, rng.normal(size=16) * 10
    loud -= loud.mean()
    for truth, kept in ((loud, 0.9), (np.zeros(16), 0.4)):
        noisy = truth + rng.normal(size=16) * 100
        noisy -= noisy.mean()
        shrunk = noisy.copy()
        shrink_to_cells(shrunk, h, cells, 100.0**2)
        assert np.corrcoef(shrunk, noisy)[0, 1] > 0.999 or np.allclose(shrunk, 0)
        assert (np.abs(shrunk).sum() > kept * np.abs(noisy).sum()) == (kept > 0.5)
        assert abs(shrunk.sum()) < 1e-6
    shrink_to_cells(quiet, h, cells, 0.0)
    assert np.abs(quiet).max() > 5


def test_shrinking_brings_estimates_nearer_on_average() -> None:
    rng = np.random.default_rng(9)
    cells, h = np.zeros(20, dtype=np.int64), rng.uniform(50, 500, 20)
    before, after = 0.0, 0.0
    for _ in range(300):
        truth = h * rng.normal(size=20) * 0.05
        noisy = truth + rng.normal(size=20) * 10
        total = truth.sum()
        noisy += (total - noisy.sum()) / 20
        before += ((noisy - truth) ** 2).sum()
        shrink_to_cells(noisy, h.copy(), cells, 100.0)
        after += ((noisy - truth) ** 2).sum()
    assert after < 0.8 * before
