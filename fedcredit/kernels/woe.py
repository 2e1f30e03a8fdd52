"""Weight of evidence, information value, and the exact merge of fine bins into scorecard bins.

Sign: WOE = ln(share of goods / share of bads); higher is safer. A bad is a defaulted row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcredit.errors import DataError, SpecError

__all__ = [
    "WOE_LIMIT_UNITS",
    "WOE_UNIT",
    "BinningRules",
    "MergedBins",
    "Monotone",
    "information_value",
    "merge_bins",
    "weight_of_evidence",
]

WOE_UNIT: Final = 0.05
"""Step of the grid on which WOE leaves the label holder; coarser than one row's influence on a bin."""

WOE_LIMIT_UNITS: Final = 100
"""Largest absolute WOE in units, |WOE| <= 5; also the bound on which packing proofs rest."""

_LIMIT: Final = WOE_LIMIT_UNITS * WOE_UNIT
_TIE: Final = 1e-12  # information values closer than this are the same number; the partition with fewer bins wins

Monotone = Literal["increasing", "decreasing", "auto"]
Direction = Literal["increasing", "decreasing"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BinningRules:
    """What a scorecard bin must satisfy.

    Args:
        max_bins: Most bins over the ordered fine bins; bins of special codes that stand alone come on top.
        min_share: Least share of all rows (special and missing ones count in the total) in an ordered bin, [0, 1).
        min_goods: Least goods in a bin.
        min_bads: Least bads in a bin.
        smoothing: Added to goods and to bads of a bin before WOE is taken, >= 0.
        monotone: Direction of *default risk* along the ordered bins; ``"auto"`` takes the direction with the higher
            information value; None leaves the shape free.

    Raises:
        SpecError: A value is out of its range.
    """

    max_bins: int = 8
    min_share: float = 0.05
    min_goods: int = 20
    min_bads: int = 20
    smoothing: float = 0.5
    monotone: Monotone | None = None

    def __post_init__(self) -> None:
        wrong = (
            ("max_bins", self.max_bins < 1, "at least 1"),
            ("min_share", not 0.0 <= self.min_share < 1.0, "in [0, 1)"),
            ("min_goods", self.min_goods < 0, "at least 0"),
            ("min_bads", self.min_bads < 0, "at least 0"),
            ("smoothing", not 0.0 <= self.smoothing < np.inf, "a finite number of at least 0"),
            (
                "monotone",
                self.monotone not in (None, "increasing", "decreasing", "auto"),
                "increasing, decreasing, auto",
            ),
        )
        for key, bad, right in wrong:
            if bad:
                raise SpecError("spec.bin", f"bin.{key} is {getattr(self, key)!r}; it must be {right}")


@dataclass(frozen=True, eq=False)
class MergedBins:
    """Scorecard bins made from fine bins.

    Args:
        group: int64 (prebins,), scorecard bin of each fine bin. Ids are 0..bins-1: first the ordered bins in order
            (for categories: by rising bad rate), then the special and missing bins that stand alone.
        goods: int64 (bins,).
        bads: int64 (bins,).
        woe_units: int64 (bins,), WOE in steps of WOE_UNIT, within +-WOE_LIMIT_UNITS.
        iv: Information value of the bins before rounding, >= 0.
    """

    group: Ints
    goods: Ints
    bads: Ints
    woe_units: Ints
    iv: float

    @property
    def bins(self) -> int:
        """Number of scorecard bins."""
        return int(self.goods.size)

    @property
    def woe(self) -> Floats:
        """float64 (bins,), the rounded weight of evidence."""
        return self.woe_units.astype(np.float64) * WOE_UNIT

    @property
    def bad_rate(self) -> Floats:
        """float64 (bins,), bads over rows without smoothing; 0 where a bin has no rows."""
        rate: Floats = self.bads.astype(np.float64) / np.maximum(self.goods + self.bads, 1)
        return rate


def _counts(goods: ArrayLike, bads: ArrayLike) -> tuple[Ints, Ints]:
    g, b = np.asarray(goods), np.asarray(bads)
    if g.ndim != 1 or g.shape != b.shape or g.size == 0:
        raise DataError("kernels.counts", f"goods {g.shape} and bads {b.shape} must be two equal, non-empty vectors")
    if not (np.issubdtype(g.dtype, np.integer) and np.issubdtype(b.dtype, np.integer)):
        raise DataError("kernels.counts", f"goods ({g.dtype}) and bads ({b.dtype}) must be integer counts")
    if int(g.min()) < 0 or int(b.min()) < 0:
        raise DataError("kernels.counts", "a bin has a negative count of goods or bads; counts start at 0")
    return g.astype(np.int64), b.astype(np.int64)


def _woe(goods: ArrayLike, bads: ArrayLike, totals: tuple[int, int], smoothing: float) -> tuple[Floats, Floats]:
    """WOE and contribution to IV of bins, any shape, given the totals of goods and bads."""
    good_share: Floats = (np.atleast_1d(np.asarray(goods, dtype=np.float64)) + smoothing) / max(
        totals[0] + smoothing, 1e-300
    )
    bad_share: Floats = (np.atleast_1d(np.asarray(bads, dtype=np.float64)) + smoothing) / max(
        totals[1] + smoothing, 1e-300
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        woe: Floats = np.clip(np.log(good_share / bad_share), -_LIMIT, _LIMIT)
    woe[np.isnan(woe)] = 0.0
    value: Floats = (good_share - bad_share) * woe
    return woe, value


def weight_of_evidence(goods: ArrayLike, bads: ArrayLike, smoothing: float = 0.5) -> Floats:
    """WOE of each bin, ln of its share of the goods over its share of the bads.

    With s the smoothing, g of G goods and b of B bads in the bin: ``ln((g+s)/(G+s)) - ln((b+s)/(B+s))``, clipped to
    +-5. The denominators do not depend on the number of bins, so a single bin has WOE 0 exactly and the WOE of a bin
    does not change when other bins merge. Without smoothing a bin with neither goods nor bads has WOE 0.

    Args:
        goods: Counts (bins,), integers >= 0.
        bads: Counts (bins,).
        smoothing: >= 0.

    Returns:
        float64 (bins,) in [-5, 5].

    Raises:
        DataError: Shapes differ, or a count is negative or no integer.

    Source: Good, "Probability and the Weighing of Evidence" (1950); Siddiqi, "Credit Risk Scorecards" (2006), ch. 6.
    """
    g, b = _counts(goods, bads)
    return _woe(g, b, (int(g.sum()), int(b.sum())), smoothing)[0]


def information_value(goods: ArrayLike, bads: ArrayLike, smoothing: float = 0.5) -> float:
    """Information value of a binning, the sum over bins of (share of goods - share of bads) x WOE.

    Shares carry the same smoothing as WOE, so each term and the total are >= 0; a single bin has exactly 0.

    Args:
        goods: Counts (bins,), integers >= 0.
        bads: Counts (bins,).
        smoothing: >= 0.

    Raises:
        DataError: Shapes differ, or a count is negative or no integer.

    Source: Kullback & Leibler (1951), the symmetric divergence J; Siddiqi (2006), ch. 6.
    """
    g, b = _counts(goods, bads)
    return float(_woe(g, b, (int(g.sum()), int(b.sum())), smoothing)[1].sum())


@dataclass(frozen=True, eq=False)
class _Programme:
    """All contiguous bins over q ordered fine bins: entry [i, j] is the bin of fine bins i..j-1, i < j.

    Every array is (q+1, q+1). ``value`` is the contribution to IV, -inf where the bin is not admissible.
    """

    goods: Ints
    bads: Ints
    value: Floats

    @classmethod
    def build(cls, goods: Ints, bads: Ints, totals: tuple[int, int], rules: BinningRules) -> _Programme:
        edge_goods = np.concatenate(([0], np.cumsum(goods)))
        edge_bads = np.concatenate(([0], np.cumsum(bads)))
        g = edge_goods[None, :] - edge_goods[:, None]
        b = edge_bads[None, :] - edge_bads[:, None]
        least_rows = max(rules.min_share * sum(totals) * (1.0 - _TIE), 1.0)
        admissible = (g >= rules.min_goods) & (b >= rules.min_bads) & (g + b >= least_rows)
        admissible &= np.triu(np.ones(g.shape, dtype=np.bool_), k=1)
        upper_goods, upper_bads = np.maximum(g, 0), np.maximum(b, 0)
        value = _woe(upper_goods, upper_bads, totals, rules.smoothing)[1]
        return cls(upper_goods, upper_bads, np.where(admissible, value, -np.inf))

    def solve(self, max_bins: int, smoothing: float, direction: Direction | None) -> tuple[float, list[int]] | None:
        """Best admissible partition as (IV, right edges), or None.

        ``best[i, j]`` is the best IV of a partition of fine bins 0..j-1 whose last bin is i..j-1. Keeping the last bin
        in the state is what makes the monotone constraint, which ties neighbours, exact.
        """
        size = self.value.shape[0]
        penalty = None if direction is None else self._penalty(smoothing, direction)
        best = np.full((size, size), -np.inf)
        best[0] = self.value[0]
        found = (float(best[0, -1]), 1, 0)
        steps: list[NDArray[np.intp]] = []
        for bins in range(2, min(max_bins, size - 1) + 1):
            if penalty is None:
                back = np.broadcast_to(best.argmax(axis=0)[:, None], best.shape)
                ahead = best.max(axis=0)[:, None]
            else:
                chained = best[:, :, None] + penalty
                back = chained.argmax(axis=0)
                ahead = chained.max(axis=0)
            best = ahead + self.value
            steps.append(back)
            start = int(best[:, -1].argmax())
            if best[start, -1] > found[0] + _TIE:
                found = (float(best[start, -1]), bins, start)
        if found[0] == -np.inf:
            return None
        edges, start, end = [size - 1], found[2], size - 1
        for back in reversed(steps[: found[1] - 1]):
            edges.append(start)
            start, end = int(back[start, end]), start
        return found[0], edges[::-1]

    def _penalty(self, smoothing: float, direction: Direction) -> Floats:
        """(h, i, j): 0 if bin i..j may follow bin h..i, else -inf; cross products keep the raw rates exact."""
        ordered = _in_order(
            (self.goods[:, :, None], self.bads[:, :, None]), (self.goods[None], self.bads[None]), smoothing, direction
        )
        return np.where(ordered, 0.0, -np.inf)


def _in_order(left: tuple[Ints, Ints], right: tuple[Ints, Ints], smoothing: float, direction: Direction) -> Bools:
    """Whether risk does not turn back from left to right bin, both as raw bad rate and as smoothed WOE."""
    if direction == "decreasing":
        left, right = right, left
    (g0, b0), (g1, b1) = left, right
    raw: Bools = b0 * g1 <= b1 * g0
    smooth: Bools = (b0 + smoothing) * (g1 + smoothing) <= (b1 + smoothing) * (g0 + smoothing)
    return raw & smooth


def _keeps_order(goods: Ints, bads: Ints, smoothing: float, direction: Direction | None) -> bool:
    if direction is None:
        return True
    return bool(_in_order((goods[:-1], bads[:-1]), (goods[1:], bads[1:]), smoothing, direction).all())


def _one_bin(goods: Ints, bads: Ints) -> MergedBins:
    return MergedBins(
        group=np.zeros(goods.size, dtype=np.int64),
        goods=np.array([goods.sum()]),
        bads=np.array([bads.sum()]),
        woe_units=np.zeros(1, dtype=np.int64),
        iv=0.0,
    )


def _finish(group: Ints, goods: Ints, bads: Ints, rules: BinningRules) -> MergedBins:
    bins = int(group.max()) + 1
    bin_goods, bin_bads = np.zeros(bins, dtype=np.int64), np.zeros(bins, dtype=np.int64)
    np.add.at(bin_goods, group, goods)
    np.add.at(bin_bads, group, bads)
    woe, value = _woe(bin_goods, bin_bads, (int(goods.sum()), int(bads.sum())), rules.smoothing)
    units = np.rint(woe / WOE_UNIT).astype(np.int64)
    return MergedBins(group, bin_goods, bin_bads, units, float(value.sum()))


def _attach(group: Ints, goods: Ints, bads: Ints, rules: BinningRules, direction: Direction | None) -> Ints | None:
    """Give the fine bins with group -1 a place: their own bin if large enough, else the nearest ordered bin.

    Returns None if a thin one fits nowhere without breaking the order of the ordered bins.
    """
    ordered_bins = int(group.max()) + 1
    loose = np.flatnonzero(group < 0)
    standing = (goods[loose] >= max(rules.min_goods, 1)) & (bads[loose] >= max(rules.min_bads, 1))
    result = group.copy()
    result[loose[standing]] = ordered_bins + np.arange(int(standing.sum()))
    bin_goods, bin_bads = np.zeros(ordered_bins, dtype=np.int64), np.zeros(ordered_bins, dtype=np.int64)
    placed = group >= 0
    np.add.at(bin_goods, group[placed], goods[placed])
    np.add.at(bin_bads, group[placed], bads[placed])
    totals = (int(goods.sum()), int(bads.sum()))
    for thin in loose[~standing]:
        own = _woe(goods[thin], bads[thin], totals, rules.smoothing)[0]
        distance = np.abs(_woe(bin_goods, bin_bads, totals, rules.smoothing)[0] - own)
        for place in np.argsort(distance, kind="stable"):
            trial_goods, trial_bads = bin_goods.copy(), bin_bads.copy()
            trial_goods[place] += goods[thin]
            trial_bads[place] += bads[thin]
            if _keeps_order(trial_goods, trial_bads, rules.smoothing, direction):
                bin_goods, bin_bads = trial_goods, trial_bads
                result[thin] = place
                break
        else:
            return None
    return result


def _merge(
    goods: Ints, bads: Ints, order: NDArray[np.intp], rules: BinningRules, direction: Direction | None
) -> MergedBins | None:
    """Best merge in one direction of risk; ``order`` lists the fine bins that the programme may join."""
    totals = (int(goods.sum()), int(bads.sum()))
    programme = _Programme.build(goods[order], bads[order], totals, rules)
    max_bins = rules.max_bins
    while max_bins >= 1:
        solved = programme.solve(max_bins, rules.smoothing, direction)
        if solved is None:
            return None
        group = np.full(goods.size, -1, dtype=np.int64)
        edges = solved[1]
        group[order] = np.searchsorted(edges, np.arange(order.size), side="right")
        attached = _attach(group, goods, bads, rules, direction)
        if attached is not None:
            return _finish(attached, goods, bads, rules)
        # A thin special bin upset near-tied neighbours. With one ordered bin there is no order to upset.
        max_bins = len(edges) - 1
    return None


def merge_bins(goods: ArrayLike, bads: ArrayLike, ordered: int, rules: BinningRules) -> MergedBins:
    """Merge fine bins into scorecard bins: the contiguous partition with the highest information value.

    Exact dynamic programming over all admissible partitions of the ordered fine bins, O(q^3 max_bins) for q of them.
    If ``ordered`` is 0 the fine bins are categories: they are sorted by smoothed bad rate (ties by position) and the
    same programme runs over that order, monotone rules left aside. Special and missing fine bins (index >= ordered
    > 0) stand alone when they meet min_goods and min_bads (at least one of each); a thinner one joins, in order of
    index, the ordered bin of nearest WOE that keeps a monotone rule. Where no admissible partition exists the result
    is one bin of everything with WOE 0 and IV 0. Among partitions of equal IV the one with fewer bins wins.

    Args:
        goods: Counts of the fine bins (prebins,), integers >= 0.
        bads: Counts of the fine bins (prebins,).
        ordered: How many leading fine bins are in order of value; 0 for categories.
        rules: Constraints.

    Raises:
        DataError: Counts are negative, no integers or of unequal length, or ``ordered`` exceeds their number.

    Source: Bellman, "On the approximation of curves by line segments" (1961); for categories Breiman et al., CART
    (1984), theorem 4.5: the best split of a convex criterion is contiguous in the order of bad rates.
    """
    g, b = _counts(goods, bads)
    if not 0 <= ordered <= g.size:
        raise DataError("kernels.ordered", f"{ordered} ordered bins of {g.size}; it must be between 0 and that number")
    if int(g.sum()) == 0 or int(b.sum()) == 0:
        return _one_bin(g, b)
    directions: tuple[Direction | None, ...] = (None,)
    if ordered == 0:
        rate = (b + rules.smoothing) / np.maximum(g + b + 2 * rules.smoothing, 1e-300)
        order = np.argsort(rate, kind="stable")
    else:
        order = np.arange(ordered)
        if rules.monotone == "auto":
            directions = ("increasing", "decreasing")
        elif rules.monotone is not None:
            directions = (rules.monotone,)
    merged = [_merge(g, b, order, rules, direction) for direction in directions]
    found = [result for result in merged if result is not None]
    if not found:
        return _one_bin(g, b)
    best = found[0]
    for result in found[1:]:
        if result.iv > best.iv + _TIE:
            best = result
    return best if best.bins > 1 else _one_bin(g, b)
