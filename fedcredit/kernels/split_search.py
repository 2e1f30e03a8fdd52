"""The best split of a node from sums of derivatives by bin, exact or noisy.

Candidates of a column, in the order in which ties are broken (after the order of columns):

- ordered bins: every threshold with the extras (special codes, missing) to the right, thresholds rising; then every
  other way to place the extras, thresholds falling. Ordered bins against extras is one of them. Up to three extras
  move freely; of more, the third and later ones move as one.
- categories: bins sorted by weight -G / (H + l2) (0 where H is below the least of a child), ties by number; every
  prefix against the rest.

Source: Chen & Guestrin, KDD 2016, equations 5 and 7 (weight and gain); Fisher, JASA 53 (1958) (sorted categories);
XGBoost's documentation, "Monotonic Constraints".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import SpecError
from fedcredit.kernels.compiled import compiled
from fedcredit.kernels.histogram import bin_offsets
from fedcredit.kernels.tree_model import Split, TreeFeature, canonical_split

__all__ = ["Evidence", "NodeTotals", "SplitRules", "SplitSearch"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sums = Floats | Ints

_FREE_EXTRAS: Final = 3
_SIGNS: Final = {"": 0, "increasing": 1, "decreasing": -1}


@dataclass(frozen=True)
class SplitRules:
    """When a node may be split, and what a split is worth.

    Args:
        l2: Added to the sum of second derivatives, >= 0.
        min_child_weight: Least sum of second derivatives of a child, >= 0.
        min_child_rows: Least rows of a child, estimated as its share of the second derivatives (as LightGBM does).
        min_gain: A split must gain more than this.
        debias: How many times the gain that noise alone is expected to show is taken off a noisy candidate, >= 0.
        caution: How many standard deviations of its gain are taken off a noisy candidate on top, >= 0.
        economy: A new split of a feature with a limit on them must still be the best with this share of its gain taken
            off, in [0, 1): disclosures go where they tell most.

    Raises:
        SpecError: A value is out of its range.
    """

    l2: float = 1.0
    min_child_weight: float = 1.0
    min_child_rows: int = 100
    min_gain: float = 1e-6
    debias: float = 1.0
    caution: float = 2.0
    economy: float = 0.2

    def __post_init__(self) -> None:
        for key in ("l2", "min_child_weight", "min_child_rows", "min_gain", "debias", "caution", "economy"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise SpecError("spec.boost", f"boost.{key} is {getattr(self, key)}; it must be at least 0 and finite")
        if self.economy >= 1:
            raise SpecError("spec.boost", f"boost.economy is {self.economy}; it must be below 1")


class NodeTotals(NamedTuple):
    """What is known exactly of a node.

    Args:
        g: Sum of integer first derivatives over its training rows.
        h: Sum of integer second derivatives.
        rows: Number of its training rows.
        lower: Least weight its rows may get.
        upper: Greatest weight its rows may get.
    """

    g: int
    h: int
    rows: int
    lower: float
    upper: float


class Evidence(NamedTuple):
    """Sums by bin of all features of a search, side by side.

    Args:
        g: int64 or float64 (bins,), sums of integer first derivatives.
        h: the same of second derivatives.
        cells: int64 (bins,), within each feature the group of bins whose sum is exact; looked at if there is noise.
        variance: Variance of the noise in each g and h before its sum over the cell was made exact; 0 = exact.
    """

    g: Sums
    h: Sums
    cells: Ints
    variance: float


class _Layout(NamedTuple):
    offsets: Ints
    bins: Ints
    ordered: Ints
    signs: Ints


class _Limits(NamedTuple):
    l2: float
    min_weight: float
    min_rows: float
    g_unit: float
    h_unit: float
    debias: float
    caution: float


@compiled
def _weight(g: float, h: float, l2: float, bounds: tuple[float, float]) -> float:
    total = h + l2
    free = -g / total if total > 0.0 else 0.0
    return min(max(free, bounds[0]), bounds[1])


@compiled
def _score(g: float, h: float, l2: float, bounds: tuple[float, float]) -> float:
    """Twice the loss that a node saves with its best weight within the bounds."""
    total = h + l2
    if not total > 0.0:
        return 0.0
    if bounds[0] == -np.inf and bounds[1] == np.inf:
        return g * g / total
    weight = _weight(g, h, l2, bounds)
    return -(2.0 * g * weight + total * weight * weight)


@compiled
def _gain(left_g: float, left_h: float, spread: float, sign: int, node: NodeTotals, limits: _Limits) -> float:
    """Gain of a candidate whose left side has these integer sums; -inf where the rules forbid it.

    ``spread`` is the variance of the noise in each of the two sums, ``sign`` the direction of the risk from left to
    right.
    """
    h_left, h_right = left_h * limits.h_unit, (node.h - left_h) * limits.h_unit
    if h_left < limits.min_weight or h_right < limits.min_weight:
        return -np.inf
    least = limits.min_rows * float(node.h)
    if node.rows * float(left_h) < least or node.rows * float(node.h - left_h) < least:
        return -np.inf
    total_left, total_right = h_left + limits.l2, h_right + limits.l2
    if not (total_left > 0.0 and total_right > 0.0):
        return -np.inf
    g_left, g_right = left_g * limits.g_unit, (node.g - left_g) * limits.g_unit
    bounds = (node.lower, node.upper)
    weight_left = _weight(g_left, h_left, limits.l2, bounds)
    weight_right = _weight(g_right, h_right, limits.l2, bounds)
    if sign * (weight_right - weight_left) < 0.0:
        return -np.inf
    parent = _score(node.g * limits.g_unit, node.h * limits.h_unit, limits.l2, bounds)
    gain = _score(g_left, h_left, limits.l2, bounds) + _score(g_right, h_right, limits.l2, bounds) - parent
    if spread > 0.0:
        g_noise, h_noise = spread * limits.g_unit * limits.g_unit, spread * limits.h_unit * limits.h_unit
        excess = (g_noise + weight_left * weight_left * h_noise) / total_left
        excess += (g_noise + weight_right * weight_right * h_noise) / total_right
        # The gain moves by 2 |difference of the weights| for each unit that moves from one side to the other.
        deviation = 2.0 * abs(weight_left - weight_right) * np.sqrt(g_noise)
        gain -= limits.debias * excess + limits.caution * deviation
    return gain


@compiled
def _sorted_categories(g: Sums, h: Sums, limits: _Limits) -> Ints:
    """Bins by weight; one that could not be a child by itself counts as neutral, as in XGBoost."""
    weights = np.zeros(g.size)
    for place in range(g.size):
        total = h[place] * limits.h_unit
        if total > 0.0 and total >= limits.min_weight:
            weights[place] = _weight(g[place] * limits.g_unit, total, limits.l2, (-np.inf, np.inf))
    return np.argsort(weights, kind="mergesort")


@compiled
def _spread(inside: Ints, sizes: Ints, variance: float) -> float:
    """Variance of the noise in a sum over some bins of each cell, where the sum over the whole cell is exact."""
    total = 0.0
    for cell in range(sizes.size):
        if sizes[cell] > 0:
            total += inside[cell] * (sizes[cell] - inside[cell]) / sizes[cell]
    return variance * total


@compiled
def _sizes(cells: Ints, variance: float) -> Ints:
    sizes = np.zeros(cells.max() + 1 if variance > 0.0 else 0, dtype=np.int64)
    if variance > 0.0:
        for cell in cells:
            sizes[cell] += 1
    return sizes


@compiled
def _scan_categories(evidence: Evidence, node: NodeTotals, limits: _Limits) -> tuple[float, int]:
    g, h = evidence.g, evidence.h
    order = _sorted_categories(g, h, limits)
    sizes = _sizes(evidence.cells, evidence.variance)
    inside = np.zeros_like(sizes)
    best, choice = -np.inf, -1
    left_g, left_h = g[0] - g[0], h[0] - h[0]  # zeros of their type
    for size in range(1, order.size):
        place = order[size - 1]
        left_g += g[place]
        left_h += h[place]
        if evidence.variance > 0.0:
            inside[evidence.cells[place]] += 1
        gain = _gain(left_g, left_h, _spread(inside, sizes, evidence.variance), 0, node, limits)
        if gain > best:
            best, choice = gain, size
    return best, choice


@compiled
def _scan_ordered(
    evidence: Evidence, ordered: int, monotone: int, node: NodeTotals, limits: _Limits
) -> tuple[float, int]:
    g, h, noisy = evidence.g, evidence.h, evidence.variance > 0.0
    upto_g, upto_h = g[:ordered].cumsum(), h[:ordered].cumsum()
    sizes = _sizes(evidence.cells, evidence.variance)
    inside = np.zeros_like(sizes)
    best, choice = -np.inf, -1
    for extras in range(1 << min(g.size - ordered, _FREE_EXTRAS)):
        extra_g, extra_h, size = g[0] - g[0], h[0] - h[0], 0
        inside[:] = 0
        for place in range(ordered, g.size):
            if extras >> min(place - ordered, _FREE_EXTRAS - 1) & 1:
                extra_g += g[place]
                extra_h += h[place]
                size += 1
                if noisy:
                    inside[evidence.cells[place]] += 1
        if noisy and extras > 0:
            for place in range(ordered):
                inside[evidence.cells[place]] += 1
        for step in range(ordered):
            last = step if extras == 0 else ordered - 1 - step
            if noisy and extras == 0:
                inside[evidence.cells[last]] += 1
            elif noisy and step > 0:
                inside[evidence.cells[last + 1]] -= 1
            if size + last + 1 == g.size:
                continue
            sign = monotone if last + 1 < ordered else 0
            spread = _spread(inside, sizes, evidence.variance)
            gain = _gain(upto_g[last] + extra_g, upto_h[last] + extra_h, spread, sign, node, limits)
            if gain > best:
                best, choice = gain, extras * ordered + last
    return best, choice


@compiled
def _scan(
    layout: _Layout, allowed: Bools, evidence: Evidence, node: NodeTotals, limits: _Limits
) -> tuple[Floats, Ints]:
    features = allowed.size
    gains, choices = np.full(features, -np.inf), np.full(features, -1, dtype=np.int64)
    for feature in range(features):
        if allowed[feature]:
            start, ordered = layout.offsets[feature], layout.ordered[feature]
            end = start + layout.bins[feature]
            here = Evidence(evidence.g[start:end], evidence.h[start:end], evidence.cells[start:end], evidence.variance)
            if ordered == 0:
                gains[feature], choices[feature] = _scan_categories(here, node, limits)
            else:
                gains[feature], choices[feature] = _scan_ordered(here, ordered, layout.signs[feature], node, limits)
    return gains, choices


class SplitSearch:
    """Searches nodes over a fixed list of features; their bins stand side by side in every evidence.

    Args:
        features: All features of the run.
        members: Which of them this search is over, rising.
        rules: What a split is worth.
        units: Value of one unit of the integer first and second derivatives.
    """

    def __init__(
        self, features: Sequence[TreeFeature], members: Sequence[int], rules: SplitRules, units: tuple[float, float]
    ) -> None:
        self._features = [features[member] for member in members]
        self.members = tuple(members)
        bins = [feature.bins for feature in self._features]
        ordered = [feature.ordered for feature in self._features]
        signs = [_SIGNS[feature.monotone] for feature in self._features]
        self._layout = _Layout(
            bin_offsets(bins),
            np.array(bins, dtype=np.int64),
            np.array(ordered, dtype=np.int64),
            np.array(signs, dtype=np.int64),
        )
        self._limits = _Limits(
            float(rules.l2),
            float(rules.min_child_weight),
            float(rules.min_child_rows),
            float(units[0]),
            float(units[1]),
            float(rules.debias),
            float(rules.caution),
        )

    @property
    def bins(self) -> int:
        """Number of bins of all features together."""
        return sum(feature.bins for feature in self._features)

    @property
    def offsets(self) -> Ints:
        """Place of bin 0 of each feature of the search: int64 (members,)."""
        return self._layout.offsets

    def best(self, evidence: Evidence, node: NodeTotals, allowed: Bools) -> tuple[Floats, Ints]:
        """Best candidate of each feature.

        Args:
            evidence: Sums by bin.
            node: The node's exact totals.
            allowed: bool (members,), features to look at.

        Returns:
            Gains float64 (members,), -inf where there is no candidate, and the candidates' numbers int64 (members,).
        """
        return _scan(self._layout, allowed, evidence, node, self._limits)

    def split_of(self, member: int, choice: int, evidence: Evidence) -> Split:
        """What a number given by :meth:`best` on the same evidence means.

        Args:
            member: Place of the feature among the members.
            choice: The candidate's number.
            evidence: Sums by bin.
        """
        feature, start = self._features[member], int(self._layout.offsets[member])
        if feature.ordered:
            extras, last = divmod(choice, feature.ordered)
            moved = range(feature.ordered, feature.bins)
            left = [place for place in moved if extras >> min(place - feature.ordered, _FREE_EXTRAS - 1) & 1]
            return canonical_split(self.members[member], [*range(last + 1), *left], feature.bins)
        here = slice(start, start + feature.bins)
        order = _sorted_categories(evidence.g[here], evidence.h[here], self._limits)
        return canonical_split(self.members[member], [int(place) for place in order[:choice]], feature.bins)

    def gain(self, split: Split, evidence: Evidence, node: NodeTotals) -> float:
        """Gain of one given split of a member, from sums by bin; -inf where the rules forbid it."""
        member = self.members.index(split.feature)
        start = int(self._layout.offsets[member])
        places = start + np.array(split.left, dtype=np.int64)
        left_g, left_h = sum(evidence.g[places].tolist()), sum(evidence.h[places].tolist())
        spread = 0.0
        if evidence.variance > 0.0:
            cells = evidence.cells[start : start + self._features[member].bins]
            inside = np.bincount(cells[list(split.left)], minlength=int(cells.max()) + 1)
            spread = float(_spread(inside, np.bincount(cells), evidence.variance))
        return float(_gain(left_g, left_h, spread, self._sign(member, split), node, self._limits))

    def children(self, split: Split, node: NodeTotals, left: tuple[int, int, int]) -> tuple[NodeTotals, NodeTotals]:
        """Totals of both children of a split of a member; a monotone split parts the bounds at the midpoint.

        Args:
            split: The split.
            node: The node that is split.
            left: The left child's integer sums of first and second derivatives, and its rows.
        """
        sides = (left, (node.g - left[0], node.h - left[1], node.rows - left[2]))
        bounds = (node.lower, node.upper)
        units = (self._limits.g_unit, self._limits.h_unit)
        weights = [_weight(g * units[0], h * units[1], self._limits.l2, bounds) for g, h, _ in sides]
        middle, sign = (weights[0] + weights[1]) / 2.0, self._sign(self.members.index(split.feature), split)
        below, above = (node.lower, middle), (middle, node.upper)
        apart = {0: (bounds, bounds), 1: (below, above), -1: (above, below)}[sign]
        return NodeTotals(*sides[0], *apart[0]), NodeTotals(*sides[1], *apart[1])

    def _sign(self, member: int, split: Split) -> int:
        """Direction of the risk from left to right, where both sides hold ordered bins; else 0."""
        feature = self._features[member]
        low = sum(place < feature.ordered for place in split.left)
        return int(self._layout.signs[member]) if 0 < low < feature.ordered else 0
