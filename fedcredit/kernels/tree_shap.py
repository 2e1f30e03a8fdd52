"""How much each feature moves the margin of each row: path-dependent Shapley values of boosted trees.

Source of the values: S. Lundberg, G. Erion, S.-I. Lee, "Consistent individualized feature attribution for tree
ensembles", arXiv 1802.03888, algorithm 2. Where a feature is unknown, a row goes to both children in proportion to
their training rows.

How they are computed here: on the way to a leaf, the feature j lets a share z_j of the training rows pass and lets the
row itself pass (o_j = 1) or not (o_j = 0); splits on one feature multiply. Then feature i earns at that leaf

    value * (o_i - z_i) * integral over t in [0, 1] of the product over j != i of (o_j t + z_j (1 - t)),

the multilinear extension of the game (G. Owen, Management Science 18 (1972), P64-P79). The integrand is a polynomial,
so that Gauss-Legendre points give the integral without a rest, and all terms are positive, so that nothing cancels:
algorithm 2 divides by shares and loses digits in deep trees. What a row earns at a leaf depends only on which o_j are
1; rows with the same pattern share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError
from fedcredit.kernels.compiled import compiled
from fedcredit.kernels.tree_model import BoostedTrees, Split, Tree

__all__ = ["shapley"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_TABLE: Final = 10  # features on a path up to which all 2^10 patterns have a place in a table (1,024 x 10 numbers)


class _Leaves(NamedTuple):
    """All leaves with a path to them, as flat arrays that a compiled loop can walk.

    Edges of leaf l are ``edge_at[l]:edge_at[l + 1]``, its distinct features ``slot_at[l]:slot_at[l + 1]``.
    """

    value: Floats
    edge_at: Ints
    edge_split: Ints
    edge_left: Bools
    edge_slot: Ints
    slot_at: Ints
    slot_feature: Ints
    slot_share: Floats


@dataclass
class _Flat:
    """The same while it grows."""

    value: list[float] = field(default_factory=list)
    edge_at: list[int] = field(default_factory=lambda: [0])
    edge_split: list[int] = field(default_factory=list)
    edge_left: list[bool] = field(default_factory=list)
    edge_slot: list[int] = field(default_factory=list)
    slot_at: list[int] = field(default_factory=lambda: [0])
    slot_feature: list[int] = field(default_factory=list)
    slot_share: list[float] = field(default_factory=list)

    def add(self, value: float, path: Sequence[_Edge], splits: Sequence[Split]) -> None:
        slots: dict[int, int] = {}
        shares: list[float] = []
        for edge in path:
            feature = splits[edge.split].feature
            slot = slots.setdefault(feature, len(slots))
            if slot == len(shares):
                shares.append(1.0)
            shares[slot] *= edge.share
            self.edge_split.append(edge.split)
            self.edge_left.append(edge.left)
            self.edge_slot.append(slot)
        self.slot_feature += slots
        self.slot_share += shares
        self.value.append(value)
        self.edge_at.append(len(self.edge_split))
        self.slot_at.append(len(self.slot_share))

    def frozen(self) -> _Leaves:
        return _Leaves(
            np.array(self.value, np.float64),
            np.array(self.edge_at, np.int64),
            np.array(self.edge_split, np.int64),
            np.array(self.edge_left, np.bool_),
            np.array(self.edge_slot, np.int64),
            np.array(self.slot_at, np.int64),
            np.array(self.slot_feature, np.int64),
            np.array(self.slot_share, np.float64),
        )


class _Edge(NamedTuple):
    """A step from a node to a child: which split, whether left, and the share of the node's rows that take it."""

    split: int
    left: bool
    share: float


def shapley(model: BoostedTrees, bits: Bools) -> tuple[Floats, float]:
    """Contribution of each feature to the margin of each row.

    Args:
        model: Trees whose inner nodes have training rows.
        bits: bool (n, splits), whether each row goes left at each of ``model.splits``.

    Returns:
        float64 (n, features): log-odds of default that each of ``model.features`` adds to (positive: riskier) or takes
        from the expected margin; and the expected margin, the mean over the training rows of each tree. A row's
        contributions and the expected margin sum to its margin, up to rounding.

    Raises:
        BoundError: ``bits`` does not fit the model, or an inner node has no training rows.
    """
    if bits.dtype != np.bool_ or bits.ndim != 2 or bits.shape[1] != len(model.splits):
        raise BoundError(
            "trees.bits",
            f"bits are {bits.dtype} {bits.shape}; they must be bool, one column for {len(model.splits)} splits",
        )
    flat = _Flat()
    expected = model.base
    for number, tree in enumerate(model.trees):
        for value, path in _paths(tree, number):
            expected += value * float(np.prod([edge.share for edge in path]))
            if path and value:
                flat.add(value, path, model.splits)
    leaves = flat.frozen()
    result = np.zeros((len(model.features), bits.shape[0]))
    most = int(np.diff(leaves.slot_at).max(initial=1))
    # The product over most - 1 others has degree most - 1; m points are exact up to degree 2m - 1.
    points, weights = np.polynomial.legendre.leggauss(-(-most // 2))
    _add_leaves(result, np.ascontiguousarray(bits.T), leaves, (points + 1) / 2, weights / 2)
    return np.ascontiguousarray(result.T), float(expected)


def _paths(tree: Tree, number: int) -> Iterator[tuple[float, tuple[_Edge, ...]]]:
    """Value of each leaf and the way to it from the root."""
    open_: list[tuple[int, tuple[_Edge, ...]]] = [(0, ())]
    while open_:
        place, path = open_.pop()
        node = tree.nodes[place]
        if node.split < 0:
            yield node.value, path
            continue
        if node.rows <= 0:
            raise BoundError("trees.cover", f"tree {number}: the inner node {place} has no training rows")
        for child, left in ((node.right, False), (node.left, True)):
            open_.append((child, (*path, _Edge(node.split, left, tree.nodes[child].rows / node.rows))))


@compiled
def _earn(earned: Floats, passes: Bools, shares: Floats, points: Floats, weights: Floats) -> None:
    """What each feature of a path earns at a leaf of value 1 by a row that passes where ``passes`` says so."""
    count = shares.size
    before = np.empty(count)
    earned[:] = 0.0
    for m in range(points.size):
        t = points[m]
        product = weights[m]
        for j in range(count):
            before[j] = product
            product *= (t if passes[j] else 0.0) + shares[j] * (1.0 - t)
        product = 1.0
        for j in range(count - 1, -1, -1):
            earned[j] += before[j] * product
            product *= (t if passes[j] else 0.0) + shares[j] * (1.0 - t)
    for j in range(count):
        earned[j] *= (1.0 if passes[j] else 0.0) - shares[j]


@compiled
def _add_leaves(result: Floats, bits: Bools, leaves: _Leaves, points: Floats, weights: Floats) -> None:
    """Adds the contributions of all leaves to ``result`` (features, n); bits (splits, n)."""
    pattern = np.empty(bits.shape[1], np.int32)
    for leaf in range(leaves.value.size):
        if leaves.slot_at[leaf + 1] - leaves.slot_at[leaf] <= _TABLE:
            _find_patterns(pattern, bits, leaves, leaf)
            _add_by_pattern(result, pattern, leaves, leaf, (points, weights))
        else:
            _add_by_row(result, bits, leaves, leaf, (points, weights))


@compiled
def _find_patterns(pattern: NDArray[np.int32], bits: Bools, leaves: _Leaves, leaf: int) -> None:
    """Which features of the leaf's path stop each row: bit j for feature j."""
    pattern[:] = 0
    for edge in range(leaves.edge_at[leaf], leaves.edge_at[leaf + 1]):
        stops = np.int32(1 << leaves.edge_slot[edge])
        left = leaves.edge_left[edge]
        side = bits[leaves.edge_split[edge]]
        for row in range(side.size):
            pattern[row] |= stops if side[row] != left else np.int32(0)


@compiled
def _add_by_pattern(
    result: Floats, pattern: NDArray[np.int32], leaves: _Leaves, leaf: int, rule: tuple[Floats, Floats]
) -> None:
    """Adds one leaf's contributions, worked out once for all rows of the same pattern."""
    features = leaves.slot_feature[leaves.slot_at[leaf] : leaves.slot_at[leaf + 1]]
    shares = leaves.slot_share[leaves.slot_at[leaf] : leaves.slot_at[leaf + 1]]
    count = features.size
    seen = np.zeros(1 << count, np.bool_)
    for row in range(pattern.size):
        seen[pattern[row]] = True
    table = np.empty((count, 1 << count))
    earned = np.empty(count)
    passes = np.empty(count, np.bool_)
    for found in range(1 << count):
        if seen[found]:
            for j in range(count):
                passes[j] = (found >> j) & 1 == 0
            _earn(earned, passes, shares, rule[0], rule[1])
            for j in range(count):
                table[j, found] = leaves.value[leaf] * earned[j]
    for j in range(count):
        target, column = result[features[j]], table[j]
        for row in range(pattern.size):
            target[row] += column[pattern[row]]


@compiled
def _add_by_row(result: Floats, bits: Bools, leaves: _Leaves, leaf: int, rule: tuple[Floats, Floats]) -> None:
    """Adds one leaf's contributions row by row, where a path has too many features for a table."""
    features = leaves.slot_feature[leaves.slot_at[leaf] : leaves.slot_at[leaf + 1]]
    shares = leaves.slot_share[leaves.slot_at[leaf] : leaves.slot_at[leaf + 1]]
    earned = np.empty(features.size)
    passes = np.empty(features.size, np.bool_)
    for row in range(bits.shape[1]):
        passes[:] = True
        for edge in range(leaves.edge_at[leaf], leaves.edge_at[leaf + 1]):
            if bits[leaves.edge_split[edge], row] != leaves.edge_left[edge]:
                passes[leaves.edge_slot[edge]] = False
        _earn(earned, passes, shares, rule[0], rule[1])
        for j in range(features.size):
            result[features[j], row] += leaves.value[leaf] * earned[j]
